//! The reference: the same work, written for the transport by hand. The options are those of a link, and so is the cipher;
//! who is who is looked at in the handshake alone, which is not measured.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use edri_connector::limits::STREAMS_MAX;
use edri_connector::quic::Options;
use futures_util::future::join_all;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, RecvStream, SendStream,
    ServerConfig, TokioRuntime, TransportConfig,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CipherSuite, RootCertStore};
use socket2::{Domain, Protocol, Socket, Type};

use super::other::{self, Other};
use super::{Reference, Work};
use crate::Result;

/// How much is written at once.
const WRITE_BYTES: usize = 64 << 10;
/// The most pieces of a stream that are read at once.
const PIECES_MAX: usize = 32;

/// The first byte of a stream: what the other side does with it.
mod kind {
    /// Reads it to its end, and then says how many bytes there were.
    pub(super) const COUNT: u8 = 0;
    /// Answers every question of 64 bytes.
    pub(super) const ANSWER: u8 = 1;
}

const QUESTION_BYTES: usize = 64;
const ANSWER_BYTES: usize = 8;

// ---- what both sides have in common --------------------------------------------------------------------------------------

pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

fn transport() -> Result<Arc<TransportConfig>> {
    let options = Options::default();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(options.datagram_bytes_max);
    let mut transport = TransportConfig::default();
    transport
        .keep_alive_interval(Some(options.keep_alive))
        .max_idle_timeout(Some(IdleTimeout::try_from(options.idle_timeout)?))
        .max_concurrent_uni_streams(0_u32.into())
        .max_concurrent_bidi_streams(STREAMS_MAX.into())
        .datagram_receive_buffer_size(None)
        .receive_window(options.window_bytes.into())
        .stream_receive_window(options.lane_window_bytes.into())
        .send_window(options.send_window_bytes.into())
        .send_fairness(false)
        .mtu_discovery_config(Some(discovery));
    Ok(Arc::new(transport))
}

fn endpoint(accepting: Option<ServerConfig>) -> Result<Endpoint> {
    let options = Options::default();
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(options.socket_bytes)?;
    socket.set_send_buffer_size(options.socket_bytes)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(options.datagram_bytes_max)?;
    Ok(Endpoint::new(config, accepting, UdpSocket::from(socket), Arc::new(TokioRuntime))?)
}

// ---- the side that receives ----------------------------------------------------------------------------------------------

/// Receives for as long as the process lives. Where.
fn receive(keys: &Path) -> Result<SocketAddr> {
    let certificate = CertificateDer::from_pem_file(other::certificate(keys))?;
    let key = PrivateKeyDer::from_pem_file(other::key(keys))?;
    let tls =
        rustls::ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?;
    let tls = tls.with_no_client_auth().with_single_cert(vec![certificate], key)?;
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport()?);
    let endpoint = endpoint(Some(config))?;
    let address = endpoint.local_addr()?;
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let connection = incoming.await.expect("the handshake succeeds");
            tokio::spawn(async move {
                while let Ok((send, receive)) = connection.accept_bi().await {
                    tokio::spawn(serve(send, receive));
                }
            });
        }
    });
    Ok(address)
}

/// Serves one stream. The other side may go at any time.
async fn serve(mut send: SendStream, mut receive: RecvStream) -> Option<()> {
    let first = receive.read_chunk(1, true).await.ok()??.bytes[0];
    if first == kind::ANSWER {
        let mut question = [0; QUESTION_BYTES];
        while receive.read_exact(&mut question).await.is_ok() {
            send.write_all(&question[..ANSWER_BYTES]).await.ok()?;
        }
        return Some(());
    }
    let mut pieces: [Bytes; PIECES_MAX] = Default::default();
    let mut bytes = 0_u64;
    while let Some(count) = receive.read_chunks(&mut pieces).await.ok()? {
        bytes += pieces[..count].iter().map(|piece| piece.len() as u64).sum::<u64>();
    }
    send.write_all(&bytes.to_be_bytes()).await.ok()?;
    send.finish().ok()
}

// ---- the side that sends -------------------------------------------------------------------------------------------------

#[derive(Clone)]
pub(super) struct Sending {
    endpoint: Endpoint,
    connection: Connection,
}

impl Reference for Sending {
    const NAME: &'static str = "raw quinn";
    type Receiving = ();

    async fn receive(keys: &Path) -> Result<(SocketAddr, ())> {
        Ok((receive(keys)?, ()))
    }

    async fn start(other: &Other) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(other::certificate(other.keys()))?)?;
        let tls = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let tls = tls.with_root_certificates(roots).with_no_client_auth();
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        config.transport_config(transport()?);
        let endpoint = endpoint(None)?;
        let connection = endpoint.connect_with(config, other.reference, other::NAME)?.await?;
        Ok(Self { endpoint, connection })
    }

    async fn run(self, work: Work, rounds: u64) -> Duration {
        let connection = self.connection;
        let began = Instant::now();
        let outcome = match work {
            Work::Notify64 | Work::Notify1k | Work::Keyed64 => frames(&connection, work.bytes(), rounds).await,
            Work::Tunnel => chunks(&connection, work.bytes(), rounds).await,
            Work::Ask1 => ping_pong(&connection, rounds).await,
            Work::Ask64 => {
                let each = rounds.div_ceil(work.in_flight());
                let requesters = (0..work.in_flight()).map(|_| {
                    let connection = connection.clone();
                    tokio::spawn(async move { ask(&connection, each).await })
                });
                join_all(requesters).await.into_iter().try_for_each(|ended| ended.expect("no panic"))
            }
        };
        outcome.expect("the other side runs");
        began.elapsed()
    }

    async fn stop(self) -> Result<u64> {
        self.connection.close(0_u32.into(), b"");
        self.endpoint.wait_idle().await;
        Ok(0)
    }
}

/// Frames of one size, put together to writes of [`WRITE_BYTES`].
async fn frames(connection: &Connection, bytes: usize, rounds: u64) -> Result<()> {
    let (mut send, receive) = connection.open_bi().await?;
    send.write_all(&[kind::COUNT]).await?;
    let frame = vec![7; bytes];
    let mut write = BytesMut::with_capacity(WRITE_BYTES);
    for _ in 0..rounds {
        write.extend_from_slice(std::hint::black_box(&frame));
        if write.len() >= WRITE_BYTES {
            let full = std::mem::replace(&mut write, BytesMut::with_capacity(WRITE_BYTES));
            send.write_chunk(full.freeze()).await?;
        }
    }
    send.write_chunk(write.freeze()).await?;
    counted(send, receive, rounds * bytes as u64).await
}

async fn chunks(connection: &Connection, bytes: usize, rounds: u64) -> Result<()> {
    let (mut send, receive) = connection.open_bi().await?;
    send.write_all(&[kind::COUNT]).await?;
    let chunk = Bytes::from(vec![7; bytes]);
    for _ in 0..rounds {
        send.write_chunk(chunk.clone()).await?;
    }
    counted(send, receive, rounds * bytes as u64).await
}

/// Ends a stream, and waits until the other side has read all of it.
async fn counted(mut send: SendStream, mut receive: RecvStream, bytes: u64) -> Result<()> {
    send.finish()?;
    let mut counted = [0; 8];
    receive.read_exact(&mut counted).await?;
    if u64::from_be_bytes(counted) == bytes { Ok(()) } else { Err("not every byte has arrived".into()) }
}

/// A stream a request.
async fn ask(connection: &Connection, rounds: u64) -> Result<()> {
    let mut question = [7; 1 + QUESTION_BYTES];
    question[0] = kind::COUNT;
    for _ in 0..rounds {
        let (mut send, receive) = connection.open_bi().await?;
        send.write_all(&question).await?;
        counted(send, receive, QUESTION_BYTES as u64).await?;
    }
    Ok(())
}

/// All requests in one stream, one after the other.
async fn ping_pong(connection: &Connection, rounds: u64) -> Result<()> {
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(&[kind::ANSWER]).await?;
    let mut answer = [0; ANSWER_BYTES];
    for _ in 0..rounds {
        send.write_all(&[7; QUESTION_BYTES]).await?;
        receive.read_exact(&mut answer).await?;
    }
    send.finish()?;
    Ok(())
}
