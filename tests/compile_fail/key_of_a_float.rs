use edri::prelude::*;

#[event(notification, name = "quake.recorded", key = magnitude)]
struct QuakeRecorded {
    region: String,
    magnitude: f64, //~ ERROR `f64` cannot be the key of an event
    //~ NOTE a key is a text, an integer, a `bool` or a `char`; floating point has no canonical text
}

fn main() {}
