//! edri's own client over TLS.

use edri::{Client, ClientError};

use super::super::access::Folder;
use super::super::client::address;
use super::super::gateway;
use super::super::tls::{issue, tls};
use super::{Tick, node, tick};
use crate::support::within;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rust_client_talks_tls_to_a_node_that_it_trusts_and_to_no_other() {
    let folder = Folder::new("client-tls");
    issue(&folder);
    let trusted =
        folder.write("trusted.pem", &std::fs::read_to_string(folder.0.join("certificate.pem")).expect("read"));
    let node = node(gateway().tls(tls(&folder))).await;
    let port = address(&node).port();
    let url = format!("wss://localhost:{port}/ws");
    let client = Client::connect(&*url).ca_file(&trusted);
    let client = within("a client", client).await.expect("it trusts the node");
    let mut ticks = client.subscribe::<Tick>().await.expect("subscribed");
    // More than a record of TLS has.
    let topic = "x".repeat(100_000);
    client.publish(Tick { topic: topic.clone(), number: 1 }).await.expect("published");
    client.publish(tick(2)).await.expect("published");
    assert_eq!(within("an event", ticks.next()).await.expect("comes").topic, topic);
    assert_eq!(within("an event", ticks.next()).await.expect("comes").number, 2);
    within("the goodbye", client.close()).await;

    let refused = async |connect: edri::Connect| {
        let refused = within("a refusal", connect).await.expect_err("it is not to be trusted");
        (matches!(refused, ClientError::Untrusted(_)), refused.to_string())
    };
    // Nobody in the system vouches for it, nor does another authority; and it is for `localhost` only.
    let (is_untrusted, said) = match Client::connect(&*url).await {
        Err(ClientError::Authorities(said)) => (true, format!("a system without authorities: {said}")),
        Err(error) => (matches!(error, ClientError::Untrusted(_)), error.to_string()),
        Ok(_) => panic!("a certificate that vouches for itself is trusted"),
    };
    assert!(is_untrusted && said.contains("ca_file"), "{said}");
    let other = Folder::new("client-tls-other");
    issue(&other);
    let (is_untrusted, said) = refused(Client::connect(&*url).ca_file(other.0.join("certificate.pem"))).await;
    assert!(is_untrusted, "{said}");
    let (is_untrusted, said) = refused(Client::connect(format!("wss://127.0.0.1:{port}/ws")).ca_file(&trusted)).await;
    assert!(is_untrusted && said.contains("name"), "{said}");
    let said = refused(Client::connect(&*url).ca_file(folder.0.join("key.pem"))).await.1;
    assert!(said.contains("no `CERTIFICATE`"), "{said}");
    let said = refused(Client::connect(format!("ws://localhost:{port}/ws")).ca_file(&trusted)).await.1;
    assert!(said.contains("wss://"), "{said}");
    node.shutdown().await;
}
