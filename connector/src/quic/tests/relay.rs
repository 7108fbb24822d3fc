//! A path that can be cut, and moved to another address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::ANYWHERE;

/// Passes datagrams on between one dialler and one address.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    cut: Arc<AtomicBool>,
    moves: mpsc::Sender<()>,
}

impl Relay {
    pub(super) async fn to(destination: SocketAddr) -> Self {
        let front = UdpSocket::bind(ANYWHERE).await.unwrap();
        let address = front.local_addr().unwrap();
        let cut = Arc::new(AtomicBool::new(false));
        let (moves, moved) = mpsc::channel(1);
        tokio::spawn(pass(front, destination, Arc::clone(&cut), moved));
        Self { address, cut, moves }
    }

    /// From now on all datagrams are lost, in both directions.
    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// From now on the dialler comes from another port.
    pub(super) async fn move_port(&self) {
        self.moves.send(()).await.unwrap();
    }
}

async fn pass(front: UdpSocket, destination: SocketAddr, cut: Arc<AtomicBool>, mut moved: mpsc::Receiver<()>) {
    let mut back = UdpSocket::bind(ANYWHERE).await.unwrap();
    let mut dialler = None;
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let lost = || cut.load(Ordering::Relaxed);
        tokio::select! {
            Ok((bytes, from)) = front.recv_from(&mut up) => {
                dialler = Some(from);
                if !lost() {
                    back.send_to(&up[..bytes], destination).await.unwrap();
                }
            }
            Ok((bytes, _)) = back.recv_from(&mut down) => {
                if let (Some(dialler), false) = (dialler, lost()) {
                    front.send_to(&down[..bytes], dialler).await.unwrap();
                }
            }
            moving = moved.recv() => match moving {
                Some(()) => back = UdpSocket::bind(ANYWHERE).await.unwrap(),
                None => return,
            },
        }
    }
}
