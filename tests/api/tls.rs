//! TLS.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use edri::prelude::*;
use edri::{ApiLimits, Tls};
use http_body_util::Empty;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::access::Folder;
use super::client::address;
use super::{gateway, node};
use crate::support::within;

/// A certificate for `localhost` that vouches for itself, in `certificate.pem` and `key.pem`.
pub(crate) fn issue(folder: &Folder) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    folder.write("key.pem", &made.signing_key.serialize_pem());
    folder.write("certificate.pem", &made.cert.pem());
    made.cert.der().clone()
}

pub(crate) fn tls(folder: &Folder) -> Tls {
    Tls::files(folder.0.join("certificate.pem"), folder.0.join("key.pem"))
}

async fn connect(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    protocol: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// A request over a connection of its own; `None` when the certificate is not this one.
async fn get(address: SocketAddr, trusted: &CertificateDer<'static>) -> Option<StatusCode> {
    let stream = connect(address, trusted, "http/1.1").await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    let driving = tokio::spawn(connection);
    let request = Request::get("/risk/north").header("host", "localhost").body(Empty::<Bytes>::new());
    let response = sender.send_request(request.expect("a request")).await.expect("is answered");
    driving.abort();
    Some(response.status())
}

#[tokio::test]
async fn a_certificate_is_replaced_while_requests_flow() {
    let folder = Folder::new("tls");
    let old = issue(&folder);
    let node = node(gateway().tls(tls(&folder))).await;
    let address = address(&node);
    // A connection that goes on with what it began with.
    let stream = connect(address, &old, "h2").await.expect("shakes hands");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    let (ends, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let flowing = tokio::spawn({
        let (ends, answered, mut sender) = (Arc::clone(&ends), Arc::clone(&answered), sender.clone());
        async move {
            while !ends.load(Ordering::SeqCst) {
                let request = Request::get("https://localhost/risk/north").body(Empty::<Bytes>::new());
                let response = sender.send_request(request.expect("a request")).await.expect("is answered");
                assert_eq!(response.status(), 200);
                answered.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    assert_eq!(get(address, &old).await, Some(StatusCode::OK));
    let new = issue(&folder);
    within("the new certificate", async { while get(address, &new).await.is_none() {} }).await;
    assert_eq!(get(address, &old).await, None);
    let before = answered.load(Ordering::SeqCst);
    within("more answers", async {
        while answered.load(Ordering::SeqCst) == before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    ends.store(true, Ordering::SeqCst);
    within("the last answer", flowing).await.expect("all were answered");
    drop(sender);
    node.shutdown().await;
}

#[tokio::test]
async fn whoever_does_not_shake_hands_is_closed_and_plain_http_is_not_answered() {
    let folder = Folder::new("tls");
    let trusted = issue(&folder);
    let mut limits = ApiLimits::default();
    limits.handshake_time = Duration::from_millis(200);
    let node = node(gateway().tls(tls(&folder)).limits(limits)).await;
    let mut silent = TcpStream::connect(address(&node)).await.expect("connects");
    let mut plain = TcpStream::connect(address(&node)).await.expect("connects");
    plain.write_all(b"GET /risk/north HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("is taken");
    for stream in [&mut silent, &mut plain] {
        let mut answer = Vec::new();
        let _ = within("the end", stream.read_to_end(&mut answer)).await;
        assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(get(address(&node), &trusted).await, Some(StatusCode::OK));
    node.shutdown().await;
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_keeps_the_node_from_starting() {
    let folder = Folder::new("tls");
    let fails = async |why: &str| match App::new("gate").api(gateway().tls(tls(&folder))).start().await {
        Ok(_) => panic!("it starts: {why}"),
        Err(error) => {
            let mut told = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                told += &format!(": {error}");
                cause = error.source();
            }
            assert!(told.contains(why) && told.contains("certificate.pem"), "{told}");
        }
    };
    fails("cannot be read").await;
    issue(&folder);
    let key = std::fs::read_to_string(folder.0.join("key.pem")).expect("a key");
    issue(&folder);
    folder.write("key.pem", &key);
    fails("do not fit").await;
    folder.write("key.pem", "nothing");
    fails("no private key").await;
    folder.write("certificate.pem", &key);
    fails("no `CERTIFICATE`").await;
}

#[tokio::test]
async fn curl_talks_tls() {
    if Command::new("curl").arg("--version").output().is_err() {
        return;
    }
    let folder = Folder::new("tls");
    issue(&folder);
    let node = node(gateway().tls(tls(&folder))).await;
    let (port, certificate) = (address(&node).port(), folder.0.join("certificate.pem"));
    let run = move || {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-w", " %{http_version}", "--resolve", &format!("localhost:{port}:127.0.0.1"), "--cacert"]);
        curl.arg(certificate).arg(format!("https://localhost:{port}/risk/north")).output()
    };
    let output = within("curl", tokio::task::spawn_blocking(run)).await.expect("joins").expect("runs");
    let answer = String::from_utf8_lossy(&output.stdout);
    assert!(answer.contains("north") && answer.ends_with(" 2"), "{answer} {}", String::from_utf8_lossy(&output.stderr));
    node.shutdown().await;
}
