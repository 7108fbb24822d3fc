//! The driver: between the route table and the engine, on one task of the node's runtime.
//!
//! ```text
//!   outboxes ─▶ pack ─▶                      ─▶ unpack ─▶ intake ─▶ groups of this node
//!   requests ─▶ calls ─▶   engine   ◀─▶ links ─▶ calls ─▶ groups, requesters
//!   tunnels  ─▶                              ─▶ tunnels
//! ```
//!
//! It owns everything it needs, so nothing here is locked; what other tasks and threads have for it stands in queues that
//! ring one bell, and a turn looks at what has rung. No user code runs here.

mod bell;
mod calls;
mod divided;
mod intake;
mod links;
mod local;
mod outbox;
mod pack;
mod remote;
mod tunnels;
mod unpack;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use edri_events::{DescriptorRef, Envelope, Incarnation, NodeName};
use edri_router::{GroupRef, InterestFeed, Router};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;

use crate::engine::{Engine, GroupKey, Output};
use crate::topology::LinkId;

use bell::Seldom;
use calls::Calls;
use divided::Divisions;
use intake::Intake;
pub(crate) use links::{Admission, FromLink};
use links::{Door, Neighbour};
use local::Locals;
use outbox::Outboxes;
use pack::{Packer, confirmed};
use remote::TableChange;
use tunnels::TunnelsOf;
pub(crate) use view::{Presence, Views};

/// What is kept of a packet of events until its destinations have it; nothing of other packets.
pub(crate) type Keep = Option<Arc<Batch>>;

/// The events of a packet, in case they become dead letters, and the groups that account for them.
pub(crate) struct Batch {
    events: Vec<Envelope>,
    groups: Vec<(GroupKey, GroupRef)>,
    /// Whether a life of another node may have handled them already.
    redelivered: bool,
}

impl Batch {
    fn group(&self, key: GroupKey) -> Option<&GroupRef> {
        self.groups.iter().find(|(known, _)| *known == key).map(|(_, group)| group)
    }
}

/// How often links are looked into for what has come before others have their turn.
const BATCHES_MAX: usize = 64;
/// How many turns the driver takes before other tasks have theirs.
const TURNS_MAX: u32 = 64;
/// Without a reason to, the driver looks up at least so often.
const IDLE: Duration = Duration::from_secs(1);

/// How long others have to say that they know what has come from them, when this node stops.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// What the connector tells its driver.
#[derive(Debug)]
pub(crate) enum Command {
    /// All configured neighbours have told what they know, or are absent.
    Settled,
    /// They have, and so have all nodes that are expected: what these may have is known.
    Met,
    /// Withdraw everything and say so; done once all others have taken note, or at the time limit.
    Leave(oneshot::Sender<()>),
    /// Say so once nothing more comes for a group of this node that was withdrawn, by its id.
    Withdrawn(u64, oneshot::Sender<()>),
    /// See to it that the others know what has come from them, account for what they have not confirmed, and say so: the links
    /// are about to close.
    Close(oneshot::Sender<()>),
}

/// What the driver of a node is made with.
pub(crate) struct Parts {
    pub(crate) router: Router,
    pub(crate) engine: Engine<Keep>,
    pub(crate) began: Instant,
    pub(crate) feed: InterestFeed,
    pub(crate) from_links: mpsc::Receiver<FromLink>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) views: Arc<Views>,
    pub(crate) outbox_events: usize,
}

pub(crate) struct Driver {
    router: Router,
    engine: Engine<Keep>,
    began: Instant,
    /// When this turn began, since `began`.
    now: Duration,
    feed: InterestFeed,
    from_links: mpsc::Receiver<FromLink>,
    commands: mpsc::Receiver<Command>,
    views: Arc<Views>,
    /// When `views` was last brought up to date.
    shown: Duration,
    outbox_events: usize,
    links: BTreeMap<LinkId, Neighbour>,
    door: Door,
    /// Events that were declared here, and are to be compared with what other nodes know.
    declared: Vec<DescriptorRef>,
    /// What is to be changed in the route table, all at once.
    changes: Vec<TableChange>,
    lives: BTreeMap<Incarnation, Life>,
    outboxes: Outboxes,
    packer: Packer,
    locals: Locals,
    intake: Intake,
    divisions: Divisions,
    calls: Calls,
    tunnels: TunnelsOf,
    /// Tunnels that have something to send and no room.
    blocked_tunnels: Vec<tunnels::Key>,
    /// When the streams of tunnels are looked at next.
    sweep: Duration,
    leaving: Option<oneshot::Sender<()>>,
    /// Who waits for the end of which group that was withdrawn.
    withdrawals: Vec<(u64, oneshot::Sender<()>)>,
    closing: Option<Closing>,
    timer: Pin<Box<Sleep>>,
    /// When the timer rings, if it is set.
    armed: Option<Duration>,
    seldom: Arc<Seldom>,
    seldom_waker: Waker,
    /// Links that something was given to which they may not have sent yet.
    busy_links: Vec<LinkId>,
    eased: FuturesUnordered<futures_util::future::BoxFuture<'static, ()>>,
}

/// The end of the links.
struct Closing {
    /// The probes that are not answered yet.
    asked: BTreeSet<u64>,
    until: Duration,
    done: oneshot::Sender<()>,
}

/// What came of a turn.
struct Turn {
    /// Notifications were sent, or as much was taken from links as is at a time.
    heavy: bool,
    /// There may be more to do.
    again: bool,
    /// When something is to be looked at again.
    due: Duration,
}

/// A life of another node.
#[derive(Debug)]
struct Life {
    node: NodeName,
    reachable: bool,
    /// It says that its own neighbours have told what they know, or are absent.
    settled: bool,
    origins: unpack::Origins,
    /// Events that it handles otherwise than this node knows them, and what differs: none is sent there.
    differs: BTreeMap<String, String>,
    /// Events of which it says the same of this node.
    differs_there: BTreeMap<String, String>,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { router, engine, began, feed, from_links, commands, views, outbox_events } = parts;
        let outboxes = Outboxes::default();
        let calls = Calls::new(&router, &outboxes.ready);
        let tunnels = TunnelsOf::new(&router, &outboxes.ready);
        let seldom = Seldom::new(&outboxes.ready);
        Self {
            router,
            engine,
            began,
            now: began.elapsed(),
            feed,
            from_links,
            commands,
            views,
            shown: Duration::ZERO,
            outbox_events,
            links: BTreeMap::new(),
            door: Door::default(),
            declared: Vec::new(),
            changes: Vec::new(),
            blocked_tunnels: Vec::new(),
            lives: BTreeMap::new(),
            outboxes,
            packer: Packer::default(),
            locals: Locals::default(),
            intake: Intake::default(),
            divisions: Divisions::default(),
            calls,
            tunnels,
            sweep: IDLE,
            leaving: None,
            withdrawals: Vec::new(),
            closing: None,
            timer: Box::pin(tokio::time::sleep(IDLE)),
            armed: None,
            seldom_waker: seldom.waker(),
            seldom,
            busy_links: Vec::new(),
            eased: FuturesUnordered::new(),
        }
    }

    fn look_at_clock(&mut self) {
        self.now = self.began.elapsed();
    }

    /// The time of this turn.
    fn now(&self) -> Duration {
        self.now
    }

    /// Runs until the node has ended.
    pub(crate) async fn run(mut self) {
        let mut turns = 0_u32;
        loop {
            if self.is_filling() {
                // Others are about to ask or to answer as well: theirs goes along.
                tokio::task::yield_now().await;
            }
            let Some(Turn { heavy, again, due }) = self.turn().await else { return };
            turns = turns.wrapping_add(1);
            if heavy || turns.is_multiple_of(TURNS_MAX) {
                // Others on this runtime have their turn; what they publish meanwhile goes together.
                tokio::task::yield_now().await;
            } else if !again {
                self.wait(due).await;
            }
        }
    }

    /// Takes what has come, and sends what may go. `None` once the node has ended.
    async fn turn(&mut self) -> Option<Turn> {
        self.look_at_clock();
        let mut again = self.take_seldom()?;
        let mut heavy = self.take_from_links();
        self.take_outcomes();
        self.take_forgone();
        self.take_tunnels();
        // What has come may make room for what is to go.
        self.settle().await;
        self.divide();
        heavy |= self.pack();
        self.flush_high();
        self.engine.tick(self.now());
        for descriptor in std::mem::take(&mut self.declared) {
            self.recheck(&descriptor);
        }
        again |= self.settle().await;
        again |= self.look_at_links();
        self.look_at_leaving();
        let due = self.look_at_others();
        Some(Turn { heavy, again, due })
    }

    /// Takes what happens seldom, if any of it has rung. Whether anything has changed on this node; `None` once it has ended.
    ///
    /// Each is asked until it has nothing, and rings then once it has, or once it may be asked again: nothing is missed.
    fn take_seldom(&mut self) -> Option<bool> {
        if !self.seldom.take() {
            return Some(false);
        }
        let waker = self.seldom_waker.clone();
        let mut cx = Context::from_waker(&waker);
        while let Poll::Ready(from) = self.from_links.poll_recv(&mut cx) {
            self.take_from_link(from?);
        }
        let mut changed = false;
        while let Poll::Ready(change) = self.feed.poll_next(&mut cx) {
            self.interest(change?);
            changed = true;
        }
        while let Poll::Ready(command) = self.commands.poll_recv(&mut cx) {
            self.command(command?);
        }
        while let Poll::Ready(Some(first)) = self.intake.poll_placed(&mut cx) {
            self.placed(first);
        }
        while let Poll::Ready(Some(())) = self.eased.poll_next_unpin(&mut cx) {}
        if self.armed.is_some() && self.timer.as_mut().poll(&mut cx).is_ready() {
            self.armed = None;
        }
        Some(changed)
    }

    /// Waits until there is something to do, at the latest when it is `due`.
    async fn wait(&mut self, due: Duration) {
        self.arm(due);
        if self.intake.is_to_be_polled() {
            self.seldom.ring();
        }
        let ready = &self.outboxes.ready;
        poll_fn(|cx| ready.wake.poll_rung(cx)).await;
    }

    /// Sets the timer to when the engine wants to be called. One that is early does no harm, so it is moved only forwards.
    fn arm(&mut self, due: Duration) {
        let at = self.engine.deadline().map_or(due, |at| at.min(due));
        if self.armed.is_some_and(|armed| armed <= at) {
            return;
        }
        self.armed = Some(at);
        self.timer.as_mut().reset(tokio::time::Instant::from_std(self.began + at));
        // It rings for nobody before it is polled.
        if self.timer.as_mut().poll(&mut Context::from_waker(&self.seldom_waker)).is_ready() {
            self.seldom.ring();
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Settled => self.engine.set_settled(true),
            Command::Met => self.divisions.settle(),
            Command::Leave(done) => {
                self.withdraw_all();
                self.engine.set_leaving();
                self.leaving = Some(done);
            }
            Command::Withdrawn(group, done) => self.withdrawals.push((group, done)),
            Command::Close(done) => self.close(done),
        }
    }

    /// Whether requests, or responses, wait to be sent while others of their kind are under way.
    fn is_filling(&self) -> bool {
        self.calls.is_filling(self.outboxes.ready.has_rung())
    }

    /// Does what the engine says. Whether more may follow from it than what goes out.
    async fn settle(&mut self) -> bool {
        let mut any = false;
        while let Some(output) = self.engine.next_output() {
            any |= !matches!(output, Output::Packet { .. } | Output::Control { .. });
            // What is given back may go to others, and they have to be as they are.
            if matches!(output, Output::Lost { .. } | Output::Ended { .. } | Output::Forgotten { .. }) {
                self.change_table().await;
            }
            self.output(output);
        }
        self.change_table().await;
        any
    }

    /// Looks at what needs to be looked at now and then. When that is to be done again.
    fn look_at_others(&mut self) -> Duration {
        let door = self.look_at_door();
        if self.now() >= self.sweep {
            self.sweep = self.now() + IDLE;
            self.look_at_tunnel_streams();
        }
        let shown = Arc::clone(&self.views).update(self, self.shown);
        if shown.is_none() {
            self.shown = self.now();
        }
        let idle = self.now() + IDLE;
        let closing = self.look_at_closing();
        [door, shown, closing].into_iter().flatten().fold(idle, Duration::min)
    }

    /// Says that this node has left once everybody knows.
    fn look_at_leaving(&mut self) {
        if self.withdrawals.is_empty() && self.leaving.is_none() {
            return;
        }
        for (group, done) in std::mem::take(&mut self.withdrawals) {
            if self.locals.is_over(group) && self.intake.is_empty() && self.divisions.is_over(self.locals.number(group))
            {
                // As below.
                let _ = done.send(());
            } else {
                self.withdrawals.push((group, done));
            }
        }
        let left = self.leaving.is_some() && !self.locals.is_awaited() && self.intake.is_empty();
        if left && let Some(done) = self.leaving.take() {
            // If nobody waits for it any more, that is as well.
            let _ = done.send(());
        }
    }

    /// Tells the others what has come from them, and asks them to answer: whoever does has heard it.
    fn close(&mut self, done: oneshot::Sender<()>) {
        let now = self.now();
        self.engine.acknowledge_all(now);
        let mut asked = BTreeSet::new();
        for (life, _) in self.lives.iter().filter(|(_, life)| life.reachable) {
            let number = self.door.next_probe();
            self.engine.probe(*life, number);
            asked.insert(number);
        }
        self.closing = Some(Closing { asked, until: now + CLOSE_WAIT, done });
    }

    /// Ends the closing once everybody has answered and confirmed what this node had sent, or has had the time to. When it is
    /// to be looked at again.
    fn look_at_closing(&mut self) -> Option<Duration> {
        let closing = self.closing.as_ref()?;
        let done = closing.asked.is_empty() && self.engine.is_acknowledged();
        if !done && self.now() < closing.until {
            return Some(closing.until);
        }
        self.give_back();
        if let Some(closing) = self.closing.take() {
            // If nobody waits for it any more, that is as well.
            let _ = closing.done.send(());
        }
        None
    }

    fn output(&mut self, output: Output<Keep>) {
        match output {
            Output::Packet { link, origin, lane, header, body } => {
                self.send_packet(link, origin, lane, header, body);
            }
            Output::Control { links, message } => self.send_control(&links, &message),
            Output::Deliver { from, lane, groups, body, age, redelivered } => {
                self.deliver(from, lane, &groups, &body, age, redelivered);
            }
            Output::Confirmed { groups, keep, .. } => confirmed(&groups, &keep),
            Output::Lost { groups, keep, sent, why } => self.lost(&groups, &keep, sent, why),
            Output::Met { node, incarnation } => self.met(node, incarnation),
            Output::Reach { node, status } => self.reach(node, status),
            Output::Ended { node, incarnation, why } => self.ended(&node, incarnation, why),
            Output::Forgotten { node } => self.forgotten(node),
            Output::Group { key, node, incarnation, state } => self.group(key, node, incarnation, state),
            Output::Withdrawn { key, number } => self.withdrawn(key, number),
            Output::Superseded { node, number } => self.say_left(node, number),
            Output::Gone { key, why } => self.gone(key, why),
            Output::Synced { link } => self.synced(link),
            Output::Alive { node, number } => {
                if !self.closing.as_mut().is_some_and(|closing| closing.asked.remove(&number)) {
                    self.alive(node, number);
                }
            }
            Output::Twin { other } => self.twin(other),
            Output::Refused { link, why } => self.refused(link, why),
        }
    }
}
