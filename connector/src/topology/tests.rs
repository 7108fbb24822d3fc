//! What each rule promises, then networks with faults.

mod net;
mod rules;
mod simulation;
mod wire;

use edri_events::{Incarnation, NodeName, Pattern};

use super::{GroupState, Selection};

fn name(node: &str) -> NodeName {
    NodeName::new(node).expect("a name")
}

fn life(number: u64) -> Incarnation {
    Incarnation::from_number(number).expect("not 0")
}

fn group(name: &str) -> GroupState {
    let select = Pattern::new("quake.*").expect("a pattern");
    GroupState { name: name.to_owned(), selections: vec![Selection { select, key: None }], ..GroupState::default() }
}
