use edri::prelude::*;

#[event(
    request,
    name = "risk.assess",
    response = Risk, //~ ERROR `Risk` cannot be carried by edri
    //~ HELP put `#[edri::data]` on the declaration of `Risk`
)]
struct AssessRisk {
    region: String,
}

struct Risk {
    probability: f64,
}

fn main() {}
