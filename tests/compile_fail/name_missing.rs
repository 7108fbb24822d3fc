use edri::prelude::*;

#[event(notification)] //~ ERROR an event needs a name, by which every node knows it: `name = "quake.recorded"`
struct QuakeRecorded {
    magnitude: f64,
}

async fn tell(bus: &Bus) -> edri::Result<()> {
    bus.publish(QuakeRecorded { magnitude: 4.7 }).await?;
    Ok(())
}

fn main() {}
