//! NATS over TLS: a server of its own on loopback, and a client in each process. A publisher does not wait for those who
//! receive, so what waits for them may be much at the server and at the client; what is more than that is lost.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, Message, Subject};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::other::{self, Other};
use super::tally::Tally;
use super::{Reference, Work, raw};
use crate::Result;

const PROGRAM: &str = "nats-server";

/// What is published without an answer; with one, asked is how many were handled.
const SINK: Subject = Subject::from_static("bench.sink");
const ASK: Subject = Subject::from_static("bench.ask");

/// The most messages that wait in a client for whoever reads them; more than a round has.
const CAPACITY: usize = 4 << 20;
/// The most bytes that wait in the server for one client; likewise.
const PENDING: &str = "2GB";

/// How long the server may take to listen.
const START_LIMIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Why there is nothing to compare with.
pub(super) fn missing() -> Option<String> {
    let output = Command::new(PROGRAM).arg("--version").stdin(Stdio::null()).output();
    let why = |why: String| Some(format!("`{PROGRAM}` cannot be started: {why}"));
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => why(output.status.to_string()),
        Err(error) => why(error.to_string()),
    }
}

async fn connect(keys: &Path, address: SocketAddr) -> Result<Client> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(other::certificate(keys))?)?;
    let tls = rustls::ClientConfig::builder_with_provider(raw::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let options = ConnectOptions::new()
        .require_tls(true)
        .tls_client_config(tls.with_root_certificates(roots).with_no_client_auth())
        .subscription_capacity(CAPACITY);
    let connected = async {
        loop {
            match options.clone().connect(format!("tls://{address}")).await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    };
    Ok(tokio::time::timeout(START_LIMIT, connected).await.map_err(|_| format!("`{PROGRAM}` does not listen"))?)
}

// ---- the side that receives ----------------------------------------------------------------------------------------------

/// A server, killed when dropped.
pub(super) struct Server(Child);

impl Server {
    fn start(keys: &Path, address: SocketAddr) -> Result<Self> {
        let (certificate, key) = (other::certificate(keys), other::key(keys));
        let configuration = keys.join("nats.conf");
        let text = format!(
            "listen: \"{address}\"\nmax_pending: {PENDING}\ntls {{ cert_file: {certificate:?}, key_file: {key:?} }}\n"
        );
        std::fs::write(&configuration, text)?;
        let mut command = Command::new(PROGRAM);
        command.arg("--config").arg(configuration).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn()?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn sink(client: Client, mut messages: async_nats::Subscriber) {
    let mut handled = 0_u64;
    while let Some(Message { payload, reply, .. }) = messages.next().await {
        match reply {
            None => {
                std::hint::black_box(payload.len());
                handled += 1;
            }
            Some(reply) => answer(&client, reply, handled).await,
        }
    }
}

async fn answer(client: &Client, reply: Subject, number: u64) {
    client.publish(reply, Bytes::copy_from_slice(&number.to_be_bytes())).await.expect("the client runs");
}

// ---- the side that sends -------------------------------------------------------------------------------------------------

#[derive(Clone)]
pub(super) struct Sending {
    client: Client,
    tally: Tally,
}

impl Reference for Sending {
    const NAME: &'static str = "nats";
    type Receiving = Server;

    async fn receive(keys: &Path) -> Result<(SocketAddr, Server)> {
        let address = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let server = Server::start(keys, address)?;
        let client = connect(keys, address).await?;
        tokio::spawn(sink(client.clone(), client.subscribe(SINK).await?));
        let mut asked = client.subscribe(ASK).await?;
        let answering = client.clone();
        tokio::spawn(async move {
            while let Some(Message { payload, reply, .. }) = asked.next().await {
                answer(&answering, reply.expect("it is asked"), payload.len() as u64).await;
            }
        });
        // The server has both subscriptions when it has passed on a question that came after them.
        ask(&client, ASK, Bytes::new()).await?;
        Ok((address, server))
    }

    async fn start(other: &Other) -> Result<Self> {
        Ok(Self { client: connect(other.keys(), other.reference).await?, tally: Tally::default() })
    }

    async fn run(self, work: Work, rounds: u64) -> Duration {
        let data = Bytes::from(vec![7; work.bytes()]);
        let client = self.client;
        let began = Instant::now();
        if matches!(work, Work::Ask64 | Work::Ask1) {
            let each = rounds.div_ceil(work.in_flight());
            let requesters = (0..work.in_flight()).map(|_| {
                let (client, data) = (client.clone(), data.clone());
                tokio::spawn(async move {
                    for _ in 0..each {
                        let answer = ask(&client, ASK, data.clone()).await.expect("the receiver answers");
                        assert_eq!(answer, data.len() as u64, "every byte arrives");
                    }
                })
            });
            join_all(requesters).await.into_iter().for_each(|ended| ended.expect("no panic"));
            return began.elapsed();
        }
        for _ in 0..rounds {
            client.publish(SINK, data.clone()).await.expect("the client runs");
        }
        let in_all = ask(&client, SINK, Bytes::new()).await.expect("the receiver answers");
        self.tally.settle(rounds, in_all, began.elapsed())
    }

    async fn stop(self) -> Result<u64> {
        self.client.drain().await?;
        Ok(self.tally.lost())
    }
}

async fn ask(client: &Client, subject: Subject, data: Bytes) -> Result<u64> {
    let answer = client.request(subject, data).await?;
    Ok(u64::from_be_bytes(answer.payload.as_ref().try_into()?))
}
