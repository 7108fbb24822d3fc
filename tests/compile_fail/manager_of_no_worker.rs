use edri::prelude::*;

struct Record;

fn main() -> edri::Result<()> {
    let record = Manager::new("record")
        .worker(|| Record); //~ ERROR `Record` is not a worker
    //~ NOTE write `impl Worker for Record {}`
    App::new("observatory").manager(record).run() //~ ERROR `Record` is not a worker
}
