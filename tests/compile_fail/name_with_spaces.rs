use edri::prelude::*;

#[event(
    notification,
    name = "quake recorded", //~ ERROR event name "quake recorded" contains ' ' (did you mean "quake.recorded"?)
    //~ HELP use ASCII letters, digits, `_` and `-` between dots
)]
struct QuakeRecorded {
    magnitude: f64,
}

fn main() {}
