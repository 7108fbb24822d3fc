//! A program for scenarios that need one of their own: a node that can be killed, and the image of process workers.
//!
//! Its first argument says what it is.

use std::io::Write;
use std::time::Duration;

use edri::prelude::*;
use edri::{Body, Encoding};

fn main() -> edri::Result<()> {
    // The greeting is not the one that the scenarios expect: that comes from their node.
    edri::hosted(|| App::new("hosted").manager(edri_tests::workers::versatile("not this: ")));
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["foreign", how, token] => foreign(how, token),
        other => panic!("`{other:?}` is nothing this program does"),
    }
}

/// A node with a process that has been given an event it stumbles over; runs until it is killed.
fn foreign(how: &str, token: &str) -> edri::Result<()> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/foreign/worker.py");
    let manager = Manager::program("foreign", &format!("python3 '{script}' {how} {token}"));
    let app = App::new("victim").manager(manager);
    app.run_with(|node| async move {
        let body = Body::new(Encoding::Json, r#"{"key": "none", "number": 13}"#);
        node.bus().untyped().publish("test.noted", body).await.map_err(std::io::Error::other)?;
        // Long enough to be in the process's hands; the test waits for nothing that this could hide.
        tokio::time::sleep(Duration::from_millis(100)).await;
        writeln!(std::io::stdout(), "running")?;
        Ok::<_, edri::Error>(())
    })?;
    Ok(())
}
