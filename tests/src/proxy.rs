//! A bad network between nodes: forwards UDP datagrams between those who dial it and one address, and loses, delays,
//! doubles and reorders them by a seed.
//!
//! ```text
//!   dialers ◀──▶ front socket ◀──▶ a back socket for each dialer ◀──▶ the node
//! ```
//!
//! What may be late stands in one line ordered by time, so a delay that differs from datagram to datagram reorders them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// The longest datagram there is.
const DATAGRAM_MAX: usize = 65_535;
/// The most datagrams that are late at one moment; what is more is dropped.
const LATE_MAX: usize = 8_192;
/// The most dialers; those who come later are not heard.
const DIALERS_MAX: usize = 64;
/// The most datagrams between the readers of back sockets and the proxy.
const BACK_MAX: usize = 1_024;

/// What happens to datagrams, in both directions alike.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Weather {
    /// The share that is dropped, from 0 to 1.
    pub drops: f64,
    /// The share that comes twice.
    pub doubles: f64,
    /// The share that is late.
    pub delays: f64,
    /// How late at most; each is so by chance.
    pub delay_max: Duration,
}

impl Weather {
    /// Some loss, some doubles, and every third datagram up to 10 ms late.
    #[must_use]
    pub fn bad() -> Self {
        Self { drops: 0.03, doubles: 0.03, delays: 0.33, delay_max: Duration::from_millis(10) }
    }
}

/// How many datagrams had which fate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fates {
    /// Sent on; one that came twice counts twice.
    pub forwarded: u64,
    /// Dropped by chance, or because the proxy was cut, or because too many were late.
    pub dropped: u64,
    /// Sent twice.
    pub doubled: u64,
    /// Sent late.
    pub late: u64,
}

/// A proxy that runs until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    cut: AtomicBool,
    /// Counts the rebinds; a back socket of an earlier one is replaced.
    bindings: AtomicU64,
    // Held to copy or set a few numbers.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    weather: Weather,
    towards: SocketAddr,
    fates: Fates,
}

impl Proxy {
    /// Listens on a port of its own of the loopback, and forwards to the node at `towards`; everything that happens by
    /// chance follows from `seed`.
    ///
    /// # Errors
    ///
    /// When there is no socket to be had.
    pub async fn start(towards: SocketAddr, weather: Weather, seed: u64) -> io::Result<Self> {
        let front = UdpSocket::bind("127.0.0.1:0").await?;
        let address = front.local_addr()?;
        let shared = Arc::new(Shared {
            cut: AtomicBool::new(false),
            bindings: AtomicU64::new(0),
            state: Mutex::new(State { weather, towards, fates: Fates::default() }),
        });
        let (from_back, back) = mpsc::channel(BACK_MAX);
        let street = Street {
            shared: Arc::clone(&shared),
            front,
            rng: Rng::with_seed(seed),
            dialers: HashMap::new(),
            readers: JoinSet::new(),
            from_back,
            late: BinaryHeap::new(),
            number: 0,
        };
        Ok(Self { address, shared, task: tokio::spawn(street.run(back)) })
    }

    /// What is to be dialled instead of the node.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drops everything from now on.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
    }

    /// Forwards again.
    pub fn mend(&self) {
        self.shared.cut.store(false, Ordering::SeqCst);
    }

    /// Goes on with other source ports towards the node, as a router does whose table was lost.
    pub fn rebind(&self) {
        self.shared.bindings.fetch_add(1, Ordering::SeqCst);
    }

    /// Forwards to another address from now on, as if the node had moved.
    pub fn turn_to(&self, towards: SocketAddr) {
        self.shared.state.lock().towards = towards;
        self.rebind();
    }

    /// Changes what happens to datagrams.
    pub fn set_weather(&self, weather: Weather) {
        self.shared.state.lock().weather = weather;
    }

    /// What has become of all datagrams so far.
    #[must_use]
    pub fn fates(&self) -> Fates {
        self.shared.state.lock().fates
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A datagram and where it is to go.
#[derive(Debug)]
struct Datagram {
    way: Way,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    /// From this dialer to the node.
    There(SocketAddr),
    /// From the node to this dialer.
    Back(SocketAddr),
}

/// A datagram that is late: ordered by when it is due, and then by when it came.
#[derive(Debug)]
struct Late {
    due: Instant,
    number: u64,
    datagram: Datagram,
}

impl PartialEq for Late {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Late {}

impl PartialOrd for Late {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Late {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

/// The socket that stands for a dialer towards the node.
#[derive(Debug)]
struct Dialer {
    back: Arc<UdpSocket>,
    binding: u64,
}

/// Everything the proxy's task owns.
struct Street {
    shared: Arc<Shared>,
    front: UdpSocket,
    rng: Rng,
    dialers: HashMap<SocketAddr, Dialer>,
    readers: JoinSet<()>,
    from_back: mpsc::Sender<Datagram>,
    late: BinaryHeap<Reverse<Late>>,
    number: u64,
}

impl Street {
    async fn run(mut self, mut back: mpsc::Receiver<Datagram>) {
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            let due = self.late.peek().map(|Reverse(late)| late.due);
            let arrived = tokio::select! {
                received = self.front.recv_from(&mut buffer) => match received {
                    Ok((length, dialer)) => Some(Datagram { way: Way::There(dialer), bytes: buffer[..length].to_vec() }),
                    // An earlier datagram was refused at the other end.
                    Err(_) => None,
                },
                Some(datagram) = back.recv() => Some(datagram),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => None,
            };
            if let Some(datagram) = arrived {
                self.meet_fate(datagram).await;
            }
            self.send_what_is_due().await;
        }
    }

    /// Drops a datagram, puts it in the line of those that are late, or sends it on, once or twice.
    async fn meet_fate(&mut self, datagram: Datagram) {
        let weather = self.shared.state.lock().weather;
        // Always as many draws, so that what happens to one does not change what happens to the next.
        let [drops, doubles, delays, delay] = std::array::from_fn(|_| self.rng.f64());
        if drops < weather.drops || self.shared.cut.load(Ordering::SeqCst) {
            self.shared.state.lock().fates.dropped += 1;
            return;
        }
        if doubles < weather.doubles {
            self.shared.state.lock().fates.doubled += 1;
            self.send(&datagram).await;
        }
        if delays >= weather.delays {
            return self.send(&datagram).await;
        }
        if self.late.len() >= LATE_MAX {
            self.shared.state.lock().fates.dropped += 1;
            return;
        }
        self.shared.state.lock().fates.late += 1;
        self.number += 1;
        let due = Instant::now() + weather.delay_max.mul_f64(delay);
        self.late.push(Reverse(Late { due, number: self.number, datagram }));
    }

    async fn send_what_is_due(&mut self) {
        let now = Instant::now();
        while self.late.peek().is_some_and(|Reverse(late)| late.due <= now) {
            if let Some(Reverse(late)) = self.late.pop() {
                if self.shared.cut.load(Ordering::SeqCst) {
                    self.shared.state.lock().fates.dropped += 1;
                } else {
                    self.send(&late.datagram).await;
                }
            }
        }
    }

    async fn send(&mut self, datagram: &Datagram) {
        let sent = match datagram.way {
            Way::Back(dialer) => self.front.send_to(&datagram.bytes, dialer).await,
            Way::There(dialer) => match self.back(dialer).await {
                Ok(back) => {
                    let towards = self.shared.state.lock().towards;
                    back.send_to(&datagram.bytes, towards).await
                }
                Err(error) => Err(error),
            },
        };
        // What cannot be sent is lost, as in any network.
        let fates = &mut self.shared.state.lock().fates;
        match sent {
            Ok(_) => fates.forwarded += 1,
            Err(_) => fates.dropped += 1,
        }
    }

    /// The socket that stands for a dialer; a new one after a rebind.
    async fn back(&mut self, dialer: SocketAddr) -> io::Result<Arc<UdpSocket>> {
        let binding = self.shared.bindings.load(Ordering::SeqCst);
        if let Some(known) = self.dialers.get(&dialer).filter(|known| known.binding == binding) {
            return Ok(Arc::clone(&known.back));
        }
        if !self.dialers.contains_key(&dialer) && self.dialers.len() >= DIALERS_MAX {
            return Err(io::Error::other("too many dialers"));
        }
        let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
        self.readers.spawn(read(Arc::clone(&back), dialer, binding, Arc::clone(&self.shared), self.from_back.clone()));
        self.dialers.insert(dialer, Dialer { back: Arc::clone(&back), binding });
        Ok(back)
    }
}

/// Reads what the node sends to a dialer, until the dialer has another socket.
async fn read(
    back: Arc<UdpSocket>,
    dialer: SocketAddr,
    binding: u64,
    shared: Arc<Shared>,
    to_street: mpsc::Sender<Datagram>,
) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        // An error says that an earlier datagram was refused at the node.
        let Ok((length, _)) = back.recv_from(&mut buffer).await else { continue };
        if shared.bindings.load(Ordering::SeqCst) != binding {
            return;
        }
        let datagram = Datagram { way: Way::Back(dialer), bytes: buffer[..length].to_vec() };
        if to_street.send(datagram).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that a proxy with this weather stands before, and one that dials the proxy.
    async fn joined(weather: Weather) -> (UdpSocket, UdpSocket, Proxy) {
        let node = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let dialer = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let proxy = Proxy::start(node.local_addr().expect("bound"), weather, 7).await.expect("starts");
        (node, dialer, proxy)
    }

    async fn receive(socket: &UdpSocket) -> (u8, SocketAddr) {
        let mut buffer = [0; 8];
        let received = tokio::time::timeout(Duration::from_secs(20), socket.recv_from(&mut buffer));
        let (_, from) = received.await.expect("in time").expect("received");
        (buffer[0], from)
    }

    #[tokio::test]
    async fn datagrams_go_there_and_back_and_a_rebind_changes_where_they_come_from() {
        let (node, dialer, proxy) = joined(Weather::default()).await;
        let mut sources = Vec::new();
        for number in 0..3 {
            dialer.send_to(&[number], proxy.address()).await.expect("sent");
            let (got, from) = receive(&node).await;
            node.send_to(&[number + 10], from).await.expect("sent");
            assert_eq!((got, receive(&dialer).await), (number, (number + 10, proxy.address())));
            sources.push(from);
            if number == 1 {
                proxy.rebind();
            }
        }
        assert_eq!(sources[0], sources[1]);
        assert_ne!(sources[1], sources[2]);
        assert_eq!(proxy.fates(), Fates { forwarded: 6, ..Fates::default() });
    }

    #[tokio::test]
    async fn nothing_passes_while_it_is_cut() {
        let (node, dialer, proxy) = joined(Weather::default()).await;
        proxy.cut();
        dialer.send_to(&[1], proxy.address()).await.expect("sent");
        while proxy.fates().dropped == 0 {
            tokio::task::yield_now().await;
        }
        proxy.mend();
        dialer.send_to(&[2], proxy.address()).await.expect("sent");
        assert_eq!(receive(&node).await.0, 2);
    }

    #[tokio::test]
    async fn bad_weather_drops_doubles_and_reorders() {
        let (node, dialer, proxy) = joined(Weather::bad()).await;
        let mut got = Vec::new();
        for number in 0..=200 {
            dialer.send_to(&[number], proxy.address()).await.expect("sent");
        }
        loop {
            let fates = proxy.fates();
            if (got.len() as u64) < fates.forwarded {
                got.push(receive(&node).await.0);
            } else if fates.forwarded + fates.dropped >= 201 + fates.doubled {
                break;
            }
            tokio::task::yield_now().await;
        }
        let fates = proxy.fates();
        assert!(fates.dropped > 0 && fates.doubled > 0 && fates.late > 0, "{fates:?}");
        assert!(!got.is_sorted(), "some overtook others");
        got.sort_unstable();
        got.dedup();
        assert_eq!(got.len() as u64, 201 - fates.dropped);
    }
}
