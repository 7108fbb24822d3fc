use edri::prelude::*;

#[event(request, name = "risk.assess", response = f64)]
struct AssessRisk {
    region: String,
}

async fn assess(bus: &Bus) -> edri::Result<()> {
    bus.publish(AssessRisk { region: "north".into() }).await?; //~ ERROR `AssessRisk` is not a notification
    //~ HELP only notifications are published
    //~ NOTE send a request with `bus.request(..)`
    Ok(())
}

fn main() {}
