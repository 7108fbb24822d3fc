use edri::prelude::*;

#[event(notification, name = "edri.quake")] //~ ERROR names that begin with `edri.` belong to edri itself
struct QuakeRecorded {
    magnitude: f64,
}

fn main() {}
