use edri::prelude::*;

#[event(notification, name = "reading.taken")]
struct ReadingTaken<T> { //~ ERROR an event has one name and one schema, so `ReadingTaken` cannot be generic
    //~ HELP declare an event for each type it is needed with
    value: T,
}

fn main() {}
