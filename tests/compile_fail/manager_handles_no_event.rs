use edri::prelude::*;

struct QuakeRecorded {
    magnitude: f64,
}

struct Record;

impl Worker for Record {}

fn main() -> edri::Result<()> {
    let record = Manager::new("record")
        .worker(|| Record)
        .handles::<QuakeRecorded>(); //~ ERROR `QuakeRecorded` is not an event
    //~ HELP put `#[edri::event(...)]` on the declaration of `QuakeRecorded`
    App::new("observatory").manager(record).run()
}
