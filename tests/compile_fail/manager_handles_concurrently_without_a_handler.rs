use edri::prelude::*;

#[event(notification, name = "quake.recorded")]
struct QuakeRecorded {
    magnitude: f64,
}

struct Record;

impl Worker for Record {}

impl Handle<QuakeRecorded> for Record {
    async fn handle(&mut self, _: &QuakeRecorded, _: &mut Context) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() -> edri::Result<()> {
    let record = Manager::new("record")
        .worker(|| Record)
        .handles_concurrently::<QuakeRecorded>(); //~ ERROR worker `Record` has no concurrent handler for `QuakeRecorded`
    //~ HELP `Record` does not handle `QuakeRecorded` with `&self`
    //~ NOTE write `impl HandleConcurrent<QuakeRecorded> for Record {
    App::new("observatory").manager(record).run()
}
