//! A program for scenarios that need one of their own: a node that can be killed, and the image of process workers.
//!
//! Its first argument says what it is.

use std::io::Write;

use edri::prelude::*;
use edri::{Body, Encoding};
use edri_tests::{chaos, cluster, keeper, workers};

fn main() -> edri::Result<()> {
    // The greeting is not the one that the scenarios expect: that comes from their node.
    edri::hosted(|| App::new("hosted").manager(workers::versatile("not this: ")).manager(chaos::survivors()));
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["foreign", how, token] => foreign(how, token),
        ["rust", "image", _] => own_image(),
        ["node", role @ ..] => {
            tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
            cluster::run(role)
        }
        ["keeper", "write", path] => keeper::write_until_killed(path),
        ["keeper", "fill", path] => keeper::fill(path),
        ["keeper", "schedule", path, first] => {
            keeper::schedule_until_killed(path, first.parse().map_err(std::io::Error::other)?)
        }
        ["chaos", seed, events, python, script, token] => {
            let number = |text: &str| text.parse().map_err(std::io::Error::other);
            let told = chaos::run(number(seed)?, number(events)?, python, script, token)?;
            Ok(writeln!(std::io::stdout(), "{told}")?)
        }
        other => panic!("`{other:?}` is nothing this program does"),
    }
}

/// A node with a Rust worker in a process of this very image, which has answered; runs until it is killed.
fn own_image() -> edri::Result<()> {
    let app = App::new("victim").manager(workers::versatile("from the node: ").placement(Placement::Process));
    app.run_with(|node| async move {
        let answer = node.bus().request(workers::Echo { text: "hello".into() }).await?;
        // What the process would say by itself is another greeting.
        assert_eq!(answer, "from the node: hello");
        writeln!(std::io::stdout(), "running")?;
        Ok::<_, edri::Error>(())
    })?;
    Ok(())
}

/// A node with a process that has been given an event it stumbles over; runs until it is killed.
fn foreign(how: &str, token: &str) -> edri::Result<()> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/foreign/worker.py");
    let manager = Manager::program("foreign", &format!("python3 '{script}' {how} {token}"));
    let app = App::new("victim").manager(manager);
    app.run_with(|node| async move {
        let body = Body::new(Encoding::Json, r#"{"key": "none", "number": 13}"#);
        node.bus().untyped().publish("test.noted", body).await.map_err(std::io::Error::other)?;
        writeln!(std::io::stdout(), "running")?;
        Ok::<_, edri::Error>(())
    })?;
    Ok(())
}
