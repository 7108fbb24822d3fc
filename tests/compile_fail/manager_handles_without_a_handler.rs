use edri::prelude::*;

#[event(notification, name = "quake.recorded")]
struct QuakeRecorded {
    magnitude: f64,
}

struct Record;

impl Worker for Record {}

fn main() -> edri::Result<()> {
    let record = Manager::new("record")
        .worker(|| Record)
        .handles::<QuakeRecorded>(); //~ ERROR worker `Record` has no handler for `QuakeRecorded`
    //~ HELP `Record` does not handle `QuakeRecorded`
    //~ NOTE write `impl Handle<QuakeRecorded> for Record {
    App::new("observatory").manager(record).run()
}
