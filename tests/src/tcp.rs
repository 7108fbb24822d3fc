//! A TCP proxy whose network can be taken away.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    Up,
    /// Nothing goes on, and nobody is told.
    Stalled,
    /// Connections break, and there are no new ones.
    Cut,
}

/// Stands between a client and a node.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    network: watch::Sender<Network>,
    accepting: JoinHandle<()>,
}

impl TcpProxy {
    /// A proxy on a free port of the loopback.
    ///
    /// # Errors
    ///
    /// When it cannot listen.
    pub async fn to(node: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let network = watch::Sender::new(Network::Up);
        let accepting = tokio::spawn(accept(listener, node, network.clone()));
        Ok(Self { address, network, accepting })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Holds all that is on its way, without a sign.
    pub fn stall(&self) {
        self.network.send_replace(Network::Stalled);
    }

    /// Breaks all connections with what is on its way, and lets nobody connect.
    pub fn cut(&self) {
        self.network.send_replace(Network::Cut);
    }

    /// All is well again.
    pub fn mend(&self) {
        self.network.send_replace(Network::Up);
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.network.send_replace(Network::Cut);
    }
}

async fn accept(listener: TcpListener, node: SocketAddr, network: watch::Sender<Network>) {
    while let Ok((client, _)) = listener.accept().await {
        if *network.borrow() == Network::Cut {
            continue;
        }
        let Ok(server) = TcpStream::connect(node).await else { continue };
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        tokio::spawn(carry(from_client, to_server, network.subscribe()));
        tokio::spawn(carry(from_server, to_client, network.subscribe()));
    }
}

/// Carries bytes in one direction until either end is gone or the network is cut.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut network: watch::Receiver<Network>) {
    let mut cut = network.clone();
    let carrying = async {
        let mut bytes = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            let goes_on = network.wait_for(|network| *network != Network::Stalled).await.is_ok();
            if !goes_on || to.write_all(&bytes[..count]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = carrying => {}
        _ = cut.wait_for(|network| *network == Network::Cut) => {}
    }
}
