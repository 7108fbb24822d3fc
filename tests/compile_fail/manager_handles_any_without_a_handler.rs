use edri::prelude::*;

struct Record;

impl Worker for Record {}

fn main() -> edri::Result<()> {
    let record = Manager::new("record")
        .worker(|| Record)
        .handles_any("quake.>"); //~ ERROR worker `Record` has no untyped handler
    //~ HELP `Record` does not handle events by name
    //~ NOTE write `impl HandleAny for Record {
    App::new("observatory").manager(record).run()
}
