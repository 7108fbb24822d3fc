//! Clients that have nothing of edri.

use super::super::client::address;
use super::super::gateway;
use super::node;
use crate::python::environment;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_with_a_websocket_library_does_all_a_client_does() {
    let node = node(gateway()).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/foreign/websocket_client.py");
    let address = address(&node).to_string();
    let run = move || {
        std::process::Command::new(environment("python-gateway", "gateway"))
            .arg(script)
            .arg(address)
            .output()
            .expect("python runs")
    };
    let output = tokio::task::spawn_blocking(run).await.expect("no panic");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    node.shutdown().await;
}
