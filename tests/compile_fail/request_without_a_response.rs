use edri::prelude::*;

#[event(request, name = "risk.assess")] //~ ERROR a request has a response: say its type, `response = Risk`
struct AssessRisk {
    region: String,
}

fn main() {}
