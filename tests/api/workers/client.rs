//! The client of the Python SDK.

use std::io::BufRead;
use std::process::{Command, Stdio};
use std::time::Duration;

use edri_tests::tcp::TcpProxy;
use tokio::sync::mpsc;

use super::super::client::address;
use super::super::gateway;
use super::super::websocket::{node, tick};
use crate::support::{until, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_client_does_all_a_client_does_and_finds_a_feed_whole_though_its_network_is_away() {
    const EVENTS: u64 = 400;
    let node = node(gateway()).await;
    let proxy = TcpProxy::to(address(&node)).await.expect("listens");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/foreign/client_program.py");
    let python = crate::python::environment("python-gateway", "gateway");
    let mut command = Command::new(python);
    command.arg(script).arg(format!("ws://{}", proxy.address())).arg(EVENTS.to_string());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("python runs");
    let stdout = child.stdout.take().expect("its output");
    let (said, mut says) = mpsc::channel(8);
    std::thread::spawn(move || {
        for line in std::io::BufReader::new(stdout).lines().map_while(Result::ok) {
            if said.blocking_send(line).is_err() {
                break;
            }
        }
    });
    assert_eq!(within("a subscription", says.recv()).await.as_deref(), Some("subscribed"));
    for number in 0..EVENTS {
        if number == 100 {
            proxy.cut();
        }
        node.bus().publish(tick(number)).await.expect("published");
        if number > 100 && number < 300 {
            // Three seconds without a network.
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        if number == 300 {
            proxy.mend();
        }
    }
    let rest = within("the feed", says.recv()).await;
    assert!(child.wait().expect("it ends").success());
    assert_eq!(rest.as_deref(), Some("done"));
    until("its session to end", || node.topology().subscriptions.is_empty()).await;
    node.shutdown().await;
}
