use std::rc::Rc;

use edri::prelude::*;

#[event(notification, name = "quake.recorded")]
struct QuakeRecorded {
    magnitude: f64,
}

struct Record;

impl Worker for Record {}

impl Handle<QuakeRecorded> for Record {
    async fn handle(&mut self, quake: &QuakeRecorded, cx: &mut Context) -> Result<(), Failure> { //~ ERROR cannot be sent between threads safely
        //~ NOTE has type `Rc<f64>` which is not `Send`
        //~ NOTE await occurs here, with `shared` maybe used later
        let shared = Rc::new(quake.magnitude);
        cx.cancelled().await;
        drop(shared);
        Ok(())
    }
}

fn main() {}
