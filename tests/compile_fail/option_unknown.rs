use edri::prelude::*;

#[event(
    request,
    name = "risk.assess",
    response = f64,
    time_out = "2s", //~ ERROR unknown option `time_out` (did you mean `timeout`?)
    //~ HELP the options of a request are `name`, `key`, `timeout`, `response`
)]
struct AssessRisk {
    region: String,
}

fn main() {}
