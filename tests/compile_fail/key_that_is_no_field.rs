use edri::prelude::*;

#[event(notification, name = "quake.recorded", key = regoin)] //~ ERROR `QuakeRecorded` has no field `regoin`
//~ HELP (did you mean `region`?); it has `region` and `magnitude`
struct QuakeRecorded {
    region: String,
    magnitude: f64,
}

fn main() {}
