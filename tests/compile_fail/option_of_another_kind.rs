use edri::prelude::*;

#[event(
    request,
    name = "risk.assess",
    response = f64,
    ttl = "2s", //~ ERROR `ttl` is an option of a notification; the one of a request is `timeout`: `timeout = "2s"`
)]
struct AssessRisk {
    region: String,
}

#[event(
    notification,
    name = "quake.recorded",
    timeout = "2s", //~ ERROR `timeout` is an option of a request; the one of a notification is `ttl`: `ttl = "5s"`
)]
struct QuakeRecorded {
    magnitude: f64,
}

fn main() {}
