use std::collections::VecDeque;
use std::time::Duration;

use edri_events::Encoding;
use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::tunnel::{Window, from_elsewhere};

const LIMIT: Duration = Duration::from_secs(20);
const WINDOW: Grant = Grant { items: 16, bytes: 1 << 10 };

/// Both sides number the tunnels that they open, so a number alone names two.
type Key = (Opener, u64);

const FROM_NEAR: Key = (Opener::Here, 7);
const FROM_FAR: Key = (Opener::There, 7);

/// The same tunnel as the other side names it.
fn there((opener, id): Key) -> Key {
    (if opener == Opener::Here { Opener::There } else { Opener::Here }, id)
}

#[derive(Debug)]
enum Said {
    Item(Body),
    Credit(Grant),
    End,
    Abort(TunnelError),
    NoCredit,
}

/// What one side said and nobody has carried yet.
#[derive(Default)]
struct Outbox {
    said: Mutex<VecDeque<(Key, Said)>>,
    more: Notify,
}

impl Outbox {
    fn say(&self, key: Key, said: Said) {
        self.said.lock().push_back((key, said));
        self.more.notify_one();
    }

    fn take(&self) -> VecDeque<(Key, Said)> {
        std::mem::take(&mut *self.said.lock())
    }

    /// What was said since, in one word each.
    fn words(&self) -> Vec<String> {
        let word = |(_, said)| match said {
            Said::Item(_) => "item".to_owned(),
            Said::Credit(_) => "credit".to_owned(),
            Said::End => "end".to_owned(),
            Said::Abort(error) => format!("abort {}", error.code()),
            Said::NoCredit => "no credit".to_owned(),
        };
        self.take().into_iter().map(word).collect()
    }
}

impl OtherSide for Outbox {
    type Key = Key;

    fn item(&self, key: Key, item: Body) -> Result<u64, TunnelError> {
        if item.encoding != Encoding::MessagePack {
            return Err(TunnelError::Aborted(Failure::new("unwritable", "only MessagePack goes here")));
        }
        let bytes = item.bytes.len() as u64;
        self.say(key, Said::Item(item));
        Ok(bytes)
    }

    fn credit(&self, key: Key, more: Grant) {
        self.say(key, Said::Credit(more));
    }

    fn end(&self, key: Key) {
        self.say(key, Said::End);
    }

    fn abort(&self, key: Key, error: &TunnelError) {
        self.say(key, Said::Abort(error.clone()));
    }

    fn no_credit(&self, key: Key, _: &Failure) {
        self.say(key, Said::NoCredit);
    }
}

/// One of two sides, and what it said.
#[derive(Clone)]
struct Side {
    tunnels: Arc<Tunnels<Outbox>>,
    outbox: Arc<Outbox>,
}

impl Side {
    fn new() -> Self {
        let outbox = Arc::new(Outbox::default());
        Self { tunnels: Arc::new(Tunnels::new(Arc::clone(&outbox), WINDOW, Handle::current())), outbox }
    }

    /// Opens a tunnel to the other side; the ends that its opener holds.
    fn open(&self, key: Key) -> (Sender<Body>, Receiver<Body>) {
        let (offer, up, down) = from_elsewhere(Window::default());
        let (receiver, sender) = offer.into_untyped();
        self.tunnels.run(key, Opener::Here, receiver, sender, Grant::default());
        (up, down)
    }

    /// Runs a tunnel that the other side opened; the ends that its worker holds.
    fn accept(&self, key: Key) -> (Receiver<Body>, Sender<Body>) {
        let (offer, sender, receiver) = from_elsewhere(Window::default());
        self.tunnels.run(key, Opener::There, receiver, sender, WINDOW);
        offer.into_untyped()
    }

    /// Carries all that this side says to the other, in order.
    fn carry(&self, to: &Self) -> JoinHandle<()> {
        let (from, to) = (Arc::clone(&self.outbox), to.clone());
        tokio::spawn(async move {
            loop {
                for (key, said) in from.take() {
                    let (key, to) = (there(key), &to.tunnels);
                    match said {
                        Said::Item(item) => to.item(key, item),
                        Said::Credit(more) => to.credit(key, more),
                        Said::End => to.end(key),
                        Said::Abort(error) => to.abort(key, error),
                        Said::NoCredit => panic!("an item without credit"),
                    };
                }
                from.more.notified().await;
            }
        })
    }
}

/// A tunnel between two sides: the ends that an opener, near, and a worker, far, hold.
struct Wired {
    near: Side,
    far: Side,
    up: Sender<Body>,
    down: Receiver<Body>,
    worker_up: Receiver<Body>,
    worker_down: Sender<Body>,
    wires: [JoinHandle<()>; 2],
}

fn wired() -> Wired {
    let (near, far) = (Side::new(), Side::new());
    let (up, down) = near.open(FROM_NEAR);
    let (worker_up, worker_down) = far.accept(there(FROM_NEAR));
    let wires = [near.carry(&far), far.carry(&near)];
    Wired { near, far, up, down, worker_up, worker_down, wires }
}

fn number(number: u64) -> Body {
    Body::encode(Encoding::MessagePack, &number).expect("encodes")
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.expect("in time")
}

async fn next(receiver: &mut Receiver<Body>) -> Result<Option<u64>, TunnelError> {
    let body = soon(receiver.recv()).await?;
    Ok(body.map(|body| body.decode().expect("a number")))
}

/// Sends until the tunnel says why not.
async fn refused(sender: &mut Sender<Body>) -> TunnelError {
    soon(async {
        loop {
            if let Err(error) = sender.send(number(0)).await {
                return error;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// Sends as much as there is room for just now; how many that were.
fn fill(sender: &mut Sender<Body>) -> usize {
    let mut sent = 0;
    while let Some(Ok(())) = sender.send(number(0)).now_or_never() {
        sent += 1;
    }
    sent
}

/// Lets everything happen that can happen by itself: there is one thread, so nothing else runs meanwhile.
async fn rest() {
    for _ in 0..2000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn items_arrive_in_order_both_ways_in_tunnels_that_either_side_opened() {
    let mut wired = wired();
    let (mut far_up, mut far_down) = wired.far.open(there(FROM_FAR));
    let (mut near_up, mut near_down) = wired.near.accept(FROM_FAR);
    let send = tokio::spawn(async move {
        for item in 0..500 {
            wired.up.send(number(item)).await.expect("open");
            wired.worker_down.send(number(1000 + item)).await.expect("open");
            far_up.send(number(2000 + item)).await.expect("open");
            near_down.send(number(3000 + item)).await.expect("open");
        }
        (wired.up, wired.worker_down, far_up, near_down)
    });
    for item in 0..500 {
        assert_eq!(next(&mut wired.worker_up).await.expect("open"), Some(item));
        assert_eq!(next(&mut wired.down).await.expect("open"), Some(1000 + item));
        assert_eq!(next(&mut near_up).await.expect("open"), Some(2000 + item));
        assert_eq!(next(&mut far_down).await.expect("open"), Some(3000 + item));
    }
    assert_eq!((wired.near.tunnels.count(), wired.far.tunnels.count()), (2, 2));
    drop(send.await.expect("no panic"));
}

#[tokio::test]
async fn who_does_not_read_bounds_what_is_on_the_way() {
    let mut wired = wired();
    let sent = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let mut up = wired.up;
    tokio::spawn(async move {
        while up.send(number(1)).await.is_ok() {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    });
    rest().await;
    let stuck = sent.load(std::sync::atomic::Ordering::Relaxed);
    // A window on the way, one in the pipe on either side, and one item in each pump's hands.
    let most = WINDOW.items + 2 * Window::default().items as u64 + 2;
    assert!(stuck <= most, "{stuck} on the way, {most} at most");
    assert!(stuck > WINDOW.items);
    for _ in 0..stuck {
        next(&mut wired.worker_up).await.expect("open").expect("an item");
    }
    rest().await;
    assert!(sent.load(std::sync::atomic::Ordering::Relaxed) > stuck, "what was read made room");
}

#[tokio::test]
async fn who_carries_slowly_holds_no_more_than_was_granted() {
    let near = Side::new();
    let (mut up, _down) = near.open(FROM_NEAR);
    // Each of one byte.
    for item in 0..100 {
        soon(up.send(number(item))).await.expect("room in the pipe");
    }
    for (more, items) in [((0, 0), 0), ((20, 3), 3), ((0, 100), 17), ((5, 0), 5)] {
        let (more, expected) = (Grant { items: more.0, bytes: more.1 }, vec!["item"; items]);
        near.tunnels.credit(FROM_NEAR, more);
        rest().await;
        assert_eq!(near.outbox.words(), expected, "for {more:?}");
    }
}

#[tokio::test]
async fn an_item_larger_than_the_window_travels() {
    let mut wired = wired();
    let large = vec![7_u8; Window::default().bytes + 1];
    for _ in 0..3 {
        let body = Body::new(Encoding::MessagePack, large.clone());
        let receive = async {
            let body = wired.worker_up.recv().await.expect("open").expect("an item");
            assert_eq!(body.bytes.len(), large.len());
        };
        let (sent, ()) = soon(async { tokio::join!(wired.up.send(body), receive) }).await;
        sent.expect("open");
    }
}

#[tokio::test]
async fn an_item_that_cannot_be_written_breaks_the_tunnel_everywhere() {
    let mut wired = wired();
    wired.up.send(Body::new(Encoding::Json, "1")).await.expect("queued");
    assert_eq!(next(&mut wired.worker_up).await.expect_err("broken").code(), "unwritable");
    assert_eq!(next(&mut wired.down).await.expect_err("broken").code(), "unwritable");
    assert_eq!(refused(&mut wired.up).await.code(), "unwritable");
    assert_eq!(refused(&mut wired.worker_down).await.code(), "unwritable");
}

#[tokio::test]
async fn one_direction_finishes_while_the_other_goes_on() {
    let mut wired = wired();
    wired.up.send(number(1)).await.expect("open");
    wired.up.finish();
    assert_eq!(next(&mut wired.worker_up).await.expect("open"), Some(1));
    assert_eq!(next(&mut wired.worker_up).await.expect("finished"), None);
    wired.worker_down.send(number(2)).await.expect("open");
    wired.worker_down.finish();
    assert_eq!(next(&mut wired.down).await.expect("open"), Some(2));
    assert_eq!(next(&mut wired.down).await.expect("finished"), None);
    assert!(wired.down.is_finished(), "said, not just dropped");
}

#[tokio::test]
async fn the_outcome_comes_after_what_the_worker_sent_and_ends_both_directions() {
    let mut wired = wired();
    let items = Window::default().items as u64 + WINDOW.items + 50;
    for item in 0..items {
        soon(wired.worker_down.send(number(item))).await.expect("open");
    }
    drop(wired.worker_down);
    drop(wired.worker_up);
    let far = wired.far.clone();
    let sent = tokio::spawn(async move { far.tunnels.sent(there(FROM_NEAR)).await });
    rest().await;
    assert!(!sent.is_finished(), "the opener has not read");
    for item in 0..items {
        assert_eq!(next(&mut wired.down).await.expect("open"), Some(item));
    }
    soon(sent).await.expect("no panic");
    // Here the outcome is on its way.
    wired.far.tunnels.over(there(FROM_NEAR));
    rest().await;
    wired.near.tunnels.over(FROM_NEAR);
    assert_eq!(next(&mut wired.down).await.expect("left"), None);
    assert!(!wired.down.is_finished(), "its outcome says how it ended");
    assert!(matches!(refused(&mut wired.up).await, TunnelError::PeerDropped));
}

#[tokio::test]
async fn an_outcome_does_not_overtake_the_items_before_it() {
    let near = Side::new();
    let (_up, mut down) = near.open(FROM_NEAR);
    // All of it before anything here has run.
    for item in 0..WINDOW.items {
        near.tunnels.item(FROM_NEAR, number(item));
    }
    near.tunnels.over(FROM_NEAR);
    for item in 0..WINDOW.items {
        assert_eq!(next(&mut down).await.expect("came before"), Some(item));
    }
    assert_eq!(next(&mut down).await.expect("left"), None);
}

#[tokio::test]
async fn an_abort_breaks_both_directions_at_both_ends_even_without_credit() {
    let mut of_worker = wired();
    of_worker.worker_down.abort(Failure::new("full", "disk"));
    assert_eq!(next(&mut of_worker.down).await.expect_err("broken").code(), "full");
    assert_eq!(refused(&mut of_worker.up).await.code(), "full");
    // With all credit used up and nobody reading.
    let mut of_opener = wired();
    while fill(&mut of_opener.up) > 0 {
        rest().await;
    }
    of_opener.up.abort(Failure::new("enough", "said the opener"));
    assert_eq!(soon(of_opener.worker_up.broken_off()).await.code(), "enough");
    assert_eq!(refused(&mut of_opener.worker_down).await.code(), "enough");
}

#[tokio::test]
async fn an_opener_that_is_dropped_is_lost_to_the_worker() {
    let mut wired = wired();
    drop(wired.up);
    drop(wired.down);
    assert!(matches!(next(&mut wired.worker_up).await, Err(TunnelError::PeerDropped)));
}

#[tokio::test]
async fn an_opener_that_waits_no_more_is_gone_for_the_worker() {
    let mut wired = wired();
    wired.far.tunnels.over(there(FROM_NEAR));
    assert!(matches!(next(&mut wired.worker_up).await, Err(TunnelError::PeerDropped)));
    assert!(matches!(refused(&mut wired.worker_down).await, TunnelError::PeerDropped));
}

#[tokio::test]
async fn an_opener_that_reads_no_more_may_go_on_sending() {
    let mut wired = wired();
    drop(wired.down);
    for item in 0..20 * WINDOW.items {
        soon(wired.worker_down.send(number(item))).await.expect("open");
        soon(wired.up.send(number(item))).await.expect("open");
        assert_eq!(next(&mut wired.worker_up).await.expect("open"), Some(item));
    }
}

#[tokio::test]
async fn an_opener_that_neither_reads_nor_sends_is_gone_for_the_worker() {
    for finishes_first in [true, false] {
        let mut wired = wired();
        if finishes_first {
            wired.up.finish();
            rest().await;
            drop(wired.down);
        } else {
            drop(wired.down);
            // It shows when an item comes.
            soon(wired.worker_down.send(number(0))).await.expect("open");
            rest().await;
            wired.up.finish();
        }
        assert!(matches!(refused(&mut wired.worker_down).await, TunnelError::PeerDropped));
    }
}

#[tokio::test]
async fn an_other_side_that_is_gone_leaves_what_came_and_ends_both() {
    let mut wired = wired();
    wired.worker_down.send(number(1)).await.expect("open");
    rest().await;
    wired.wires.iter().for_each(JoinHandle::abort);
    wired.near.tunnels.close();
    wired.far.tunnels.close();
    assert_eq!(next(&mut wired.down).await.expect("came before"), Some(1));
    assert_eq!(next(&mut wired.down).await.expect("left"), None);
    assert!(matches!(next(&mut wired.worker_up).await, Err(TunnelError::PeerDropped)));
    assert_eq!((wired.near.tunnels.count(), wired.far.tunnels.count()), (0, 0));
}

#[tokio::test]
async fn dropping_the_tunnels_ends_them() {
    let far = Side::new();
    let (mut worker_up, mut worker_down) = far.accept(FROM_FAR);
    drop(far);
    assert!(matches!(next(&mut worker_up).await, Err(TunnelError::PeerDropped)));
    assert!(matches!(refused(&mut worker_down).await, TunnelError::PeerDropped));
}

#[tokio::test]
async fn a_lost_other_side_breaks_every_tunnel_with_the_reason_also_later_ones_and_is_told_nothing() {
    let side = Side::new();
    let (mut up, mut down) = side.open(FROM_NEAR);
    let (mut worker_up, mut worker_down) = side.accept(FROM_FAR);
    side.tunnels.item(FROM_NEAR, number(1));
    rest().await;
    assert_eq!(side.outbox.words(), ["credit"]);
    side.tunnels.break_all(TunnelError::Aborted(Failure::new("lost", "node `b`")));
    rest().await;
    assert_eq!(next(&mut down).await.expect_err("what came is dropped").code(), "lost");
    assert_eq!(refused(&mut up).await.code(), "lost");
    assert_eq!(next(&mut worker_up).await.expect_err("broken").code(), "lost");
    assert_eq!(refused(&mut worker_down).await.code(), "lost");
    let (mut up, mut down) = side.open((Opener::Here, 8));
    assert_eq!(refused(&mut up).await.code(), "lost");
    assert_eq!(next(&mut down).await.expect_err("broken").code(), "lost");
    rest().await;
    assert!(side.outbox.words().is_empty());
    assert_eq!(side.tunnels.count(), 0);
}

#[tokio::test]
async fn a_tunnel_that_is_broken_from_here_is_broken_everywhere_and_runs_until_it_is_over() {
    let mut wired = wired();
    let error = TunnelError::Aborted(Failure::new("enough", "said the carrier"));
    assert!(wired.far.tunnels.break_off(there(FROM_NEAR), error.clone()));
    assert!(wired.far.tunnels.break_off(there(FROM_NEAR), error.clone()), "once is enough, twice does no harm");
    assert_eq!(next(&mut wired.worker_up).await.expect_err("broken").code(), "enough");
    assert_eq!(refused(&mut wired.worker_down).await.code(), "enough");
    assert_eq!(next(&mut wired.down).await.expect_err("broken").code(), "enough");
    assert_eq!(refused(&mut wired.up).await.code(), "enough");
    soon(wired.far.tunnels.sent(there(FROM_NEAR))).await;
    assert_eq!(wired.far.tunnels.count(), 1);
    wired.far.tunnels.over(there(FROM_NEAR));
    assert!(!wired.far.tunnels.break_off(there(FROM_NEAR), error));
}

#[tokio::test]
async fn an_item_without_credit_breaks_its_tunnel_and_what_comes_for_none_is_dropped() {
    let side = Side::new();
    let (mut worker_up, _worker_down) = side.accept(FROM_FAR);
    // Nothing runs between these, so nothing is given back.
    for item in 0..WINDOW.items {
        assert!(side.tunnels.item(FROM_FAR, number(item)));
    }
    assert_eq!(side.outbox.words(), ["credit"]);
    assert!(side.tunnels.item(FROM_FAR, number(0)));
    assert_eq!(side.outbox.words(), ["no credit", "abort no_credit"]);
    assert_eq!(next(&mut worker_up).await.expect_err("broken").code(), "no_credit");
    side.tunnels.over(FROM_FAR);
    for key in [FROM_FAR, FROM_NEAR] {
        assert!(!side.tunnels.item(key, number(0)));
        assert!(!side.tunnels.credit(key, WINDOW));
        assert!(!side.tunnels.end(key));
        assert!(!side.tunnels.abort(key, TunnelError::PeerDropped));
        soon(side.tunnels.sent(key)).await;
        soon(side.tunnels.taken(key)).await;
    }
    assert!(side.outbox.words().is_empty());
}

#[tokio::test]
async fn bytes_without_credit_break_a_tunnel_too_but_the_last_item_may_be_longer_than_what_is_left() {
    let side = Side::new();
    let (mut worker_up, _worker_down) = side.accept(FROM_FAR);
    let long = |bytes: u64| Body::new(Encoding::MessagePack, vec![0; bytes as usize]);
    side.tunnels.item(FROM_FAR, long(WINDOW.bytes - 1));
    side.tunnels.item(FROM_FAR, long(WINDOW.bytes));
    assert_eq!(side.outbox.words(), ["credit"]);
    side.tunnels.item(FROM_FAR, long(1));
    assert_eq!(side.outbox.words(), ["no credit", "abort no_credit"]);
    assert_eq!(next(&mut worker_up).await.expect_err("broken").code(), "no_credit");
}

#[tokio::test]
async fn a_tunnel_is_taken_once_the_other_side_gives_credit_or_it_is_over() {
    let side = Side::new();
    let _ends = [side.open(FROM_NEAR), side.open((Opener::Here, 8))];
    let taken = |key| {
        let tunnels = Arc::clone(&side.tunnels);
        tokio::spawn(async move { tunnels.taken(key).await })
    };
    let (first, second) = (taken(FROM_NEAR), taken((Opener::Here, 8)));
    rest().await;
    assert!(!first.is_finished() && !second.is_finished());
    side.tunnels.credit(FROM_NEAR, WINDOW);
    soon(first).await.expect("no panic");
    assert!(!second.is_finished());
    side.tunnels.over((Opener::Here, 8));
    soon(second).await.expect("no panic");
}

#[tokio::test]
async fn a_key_that_is_used_again_ends_the_tunnel_before() {
    let side = Side::new();
    let (mut before_up, _before_down) = side.accept(FROM_FAR);
    let (mut worker_up, _worker_down) = side.accept(FROM_FAR);
    assert!(matches!(next(&mut before_up).await, Err(TunnelError::PeerDropped)));
    side.tunnels.item(FROM_FAR, number(1));
    assert_eq!(next(&mut worker_up).await.expect("open"), Some(1));
    assert_eq!(side.tunnels.count(), 1);
}
