use edri::prelude::*;

struct QuakeRecorded {
    magnitude: f64,
}

async fn tell(bus: &Bus) -> edri::Result<()> {
    bus.publish(QuakeRecorded { magnitude: 4.7 }).await?; //~ ERROR `QuakeRecorded` is not a notification
    //~ NOTE declare `QuakeRecorded` with `#[event(notification, ...)]`
    Ok(())
}

fn main() {}
