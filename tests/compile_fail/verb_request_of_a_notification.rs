use edri::prelude::*;

#[event(notification, name = "quake.recorded")]
struct QuakeRecorded {
    magnitude: f64,
}

async fn tell(bus: &Bus) -> edri::Result<()> {
    bus.request(QuakeRecorded { magnitude: 4.7 }).await?; //~ ERROR `QuakeRecorded` is not a request
    //~ HELP only requests are answered
    //~ NOTE publish a notification with `bus.publish(..)`
    Ok(())
}

fn main() {}
