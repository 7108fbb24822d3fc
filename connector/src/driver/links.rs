//! The links, as the driver sees them: who may come, what is sent and what has come.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use edri_events::{Incarnation, NodeName};
use edri_protocol::packet::Lane;
use futures_util::StreamExt;
use tokio::sync::oneshot;

use super::outbox::Ready;
use super::{BATCHES_MAX, Driver};
use crate::limits::LINK_QUEUE_BYTES;
use crate::quic::{Backlog, CloseCode, Connection, Received, Receiver, Sender, StreamLane};
use crate::topology::{LinkId, Message, Refusal};

/// How long a node that has the name of a newcomer has to say that it lives.
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// The stream of a tunnel in which nothing is sent for so long is given up; the next packet opens another.
const TUNNEL_IDLE: Duration = Duration::from_secs(10);

/// What links tell the driver.
pub(crate) enum FromLink {
    /// A neighbour has said who it is, and wants to know whether it may come.
    Admit(Admission),
    /// It has come.
    Up {
        /// Under this number.
        link: LinkId,
        /// Its connection.
        connection: Connection,
        /// The lanes to it.
        sender: Sender,
        /// The lanes from it.
        receiver: Receiver,
        /// What came over them with its hello.
        early: Vec<Received>,
        /// The life of the neighbour.
        incarnation: Incarnation,
    },
}

/// Puts a link on the list of those over which something has come. The driver reads by itself: a task between it and the
/// connection would be one more to wake for each packet.
struct Bell {
    link: LinkId,
    ready: Arc<Ready>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.links.push(self.link);
        self.ready.wake.ring();
    }
}

/// A neighbour that wants to come.
pub(crate) struct Admission {
    pub(crate) peer: NodeName,
    pub(crate) incarnation: Incarnation,
    pub(crate) dialled: bool,
    /// The number of its link, or why not.
    pub(crate) answer: oneshot::Sender<Result<LinkId, (CloseCode, String)>>,
}

/// A neighbour whose link is up.
pub(super) struct Neighbour {
    pub(super) peer: NodeName,
    pub(super) incarnation: Incarnation,
    pub(super) connection: Connection,
    pub(super) synced: bool,
    pub(super) since: Duration,
    sender: Sender,
    receiver: Receiver,
    waker: Waker,
    backlog: Backlog,
    /// Somebody waits for the backlog to fall.
    waits: bool,
    /// It is on the list of those whose backlog is looked at.
    busy: bool,
    tunnels: HashMap<u64, Duration>,
}

/// A newcomer whose name another node has, which has been asked whether it lives.
pub(super) struct Probe {
    number: u64,
    until: Duration,
    admission: Admission,
}

/// Who wants to come, and the numbers of links.
#[derive(Default)]
pub(super) struct Door {
    probes: Vec<Probe>,
    next_probe: u64,
    next_link: u32,
}

impl Door {
    pub(super) fn next_probe(&mut self) -> u64 {
        self.next_probe += 1;
        self.next_probe
    }
}

impl Driver {
    /// Takes what has come over the links. Whether there may be more.
    pub(super) fn take_from_links(&mut self) -> bool {
        let mut looks = 0;
        while let Some(link) = self.outboxes.ready.links.pop() {
            while let Some(neighbour) = self.links.get_mut(&link) {
                if looks == BATCHES_MAX {
                    self.outboxes.ready.links.push(link);
                    return true;
                }
                looks += 1;
                match neighbour.poll_received() {
                    Poll::Ready(Some(received)) => self.received(link, received),
                    Poll::Ready(None) => self.link_down(link),
                    Poll::Pending => break,
                }
            }
        }
        false
    }

    pub(super) fn take_from_link(&mut self, from: FromLink) {
        match from {
            FromLink::Admit(admission) => self.admit(admission),
            FromLink::Up { link, connection, sender, receiver, early, incarnation } => {
                self.link_up(link, connection, sender, receiver, incarnation);
                early.into_iter().for_each(|received| self.received(link, received));
                // It rings for what comes once it was looked into.
                self.outboxes.ready.links.push(link);
            }
        }
    }

    // ---- coming and going ------------------------------------------------------------------------------------------

    fn admit(&mut self, admission: Admission) {
        let Admission { peer, incarnation, dialled, .. } = &admission;
        if peer == self.router.node() {
            let text = format!("the neighbour is called `{peer}`, as this node is: every node needs a name of its own");
            return refuse(admission, CloseCode::DuplicateNode, text);
        }
        let here = self.links.values().find(|link| link.peer == *peer && link.incarnation == *incarnation);
        if let Some(here) = here {
            // Both have dialled: the connection that the first by name has dialled stays. Two by the same side are one
            // whose end the neighbour has noticed and this node has not.
            let ours_stays = self.router.node() < peer;
            if here.connection.dialled() != *dialled && *dialled != ours_stays {
                return refuse(admission, CloseCode::Redundant, "there is a link already".to_owned());
            }
            here.connection.close(CloseCode::Redundant, "there is another link");
        }
        let other = self.engine.topology().incarnation_of(peer).filter(|other| other != incarnation);
        match other.filter(|other| self.lives.get(other).is_some_and(|life| life.reachable)) {
            None => self.welcome(admission),
            Some(other) => {
                let number = self.door.next_probe();
                self.engine.probe(other, number);
                self.door.probes.push(Probe { number, until: self.now() + PROBE_WAIT, admission });
            }
        }
    }

    fn welcome(&mut self, admission: Admission) {
        self.door.next_link += 1;
        // If it does not wait any more, it has gone.
        let _ = admission.answer.send(Ok(LinkId(self.door.next_link)));
    }

    /// A life that was asked says that it lives: whoever has come under its name is refused.
    pub(super) fn alive(&mut self, node: Incarnation, number: u64) {
        let Some(at) = self.door.probes.iter().position(|probe| probe.number == number) else { return };
        let Probe { admission, .. } = self.door.probes.swap_remove(at);
        let peer = &admission.peer;
        let text =
            format!("another node called `{peer}` lives (incarnation {node}): every node needs a name of its own");
        tracing::error!(%peer, refused = %admission.incarnation, lives = %node, "two nodes have one name");
        refuse(admission, CloseCode::DuplicateNode, text);
    }

    /// Lets those in whose namesakes have not answered. When the next is due.
    pub(super) fn look_at_door(&mut self) -> Option<Duration> {
        let now = self.now();
        while let Some(at) = self.door.probes.iter().position(|probe| probe.until <= now) {
            let probe = self.door.probes.swap_remove(at);
            self.welcome(probe.admission);
        }
        self.door.probes.iter().map(|probe| probe.until).min()
    }

    fn link_up(
        &mut self,
        link: LinkId,
        connection: Connection,
        sender: Sender,
        receiver: Receiver,
        incarnation: Incarnation,
    ) {
        let (peer, now) = (connection.peer().clone(), self.now());
        let backlog = sender.backlog();
        let neighbour = Neighbour {
            peer: peer.clone(),
            incarnation,
            connection,
            synced: false,
            since: now,
            sender,
            receiver,
            waker: Waker::from(Arc::new(Bell { link, ready: Arc::clone(&self.outboxes.ready) })),
            backlog,
            waits: false,
            busy: false,
            tunnels: HashMap::new(),
        };
        // Before the engine, which sends over it at once.
        self.links.insert(link, neighbour);
        tracing::info!(%peer, %incarnation, link = link.0, "link is up");
        if let Err(why) = self.engine.link_up(now, link, peer, incarnation, 1) {
            self.cut(link, CloseCode::Refused, &why.to_string());
        }
    }

    fn link_down(&mut self, link: LinkId) {
        let Some(neighbour) = self.links.remove(&link) else { return };
        let why = neighbour.connection.closed_because().map(|closed| closed.to_string()).unwrap_or_default();
        tracing::info!(peer = %neighbour.peer, link = link.0, why, "link is down");
        let now = self.now();
        // Another connection may have taken its place already.
        if !self.links.values().any(|link| link.peer == neighbour.peer && link.synced) {
            self.views.linked(&neighbour.peer, None, Some(&why));
        }
        self.engine.link_down(now, link);
    }

    /// Closes a link; its end is told by whoever reads from it.
    fn cut(&mut self, link: LinkId, code: CloseCode, why: &str) {
        if let Some(neighbour) = self.links.get(&link) {
            tracing::warn!(peer = %neighbour.peer, link = link.0, why, "link is cut");
            neighbour.connection.close(code, why);
        }
    }

    pub(super) fn synced(&mut self, link: LinkId) {
        if let Some(neighbour) = self.links.get_mut(&link) {
            neighbour.synced = true;
            self.views.linked(&neighbour.peer, Some(true), None);
        }
    }

    pub(super) fn refused(&mut self, link: LinkId, why: Refusal) {
        let peer = self.links.get(&link).map(|neighbour| neighbour.peer.to_string());
        tracing::warn!(peer, %why, "what a neighbour said cannot be taken, and is left out");
        if why == Refusal::Malformed {
            self.cut(link, CloseCode::ProtocolError, "a message that cannot be read");
        }
    }

    /// Another node has this one's name and is to keep it: this one leaves the cluster.
    pub(super) fn twin(&mut self, other: Incarnation) {
        let node = self.router.node().clone();
        tracing::error!(%node, %other, "another node has this one's name: give this one another name and restart it");
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.cut(link, CloseCode::DuplicateNode, "another node has this one's name");
        }
        self.views.expelled(format!("another living node is called `{node}`"));
    }

    // ---- what comes ------------------------------------------------------------------------------------------------

    fn received(&mut self, link: LinkId, received: Received) {
        let now = self.now();
        for frame in received.frames {
            let taken = match received.lane {
                StreamLane::Control => match Message::decode(&frame) {
                    Ok(message) => {
                        self.engine.receive_control(now, link, message);
                        Ok(())
                    }
                    Err(error) => Err(error.to_string()),
                },
                _ => self.engine.receive(now, link, frame).map_err(|error| error.to_string()),
            };
            if let Err(why) = taken {
                return self.cut(link, CloseCode::ProtocolError, &why);
            }
        }
    }

    // ---- what goes -------------------------------------------------------------------------------------------------

    pub(super) fn send_control(&mut self, links: &[LinkId], message: &Message) {
        let frame = message.encode();
        for link in links {
            if let Some(neighbour) = self.links.get_mut(link) {
                neighbour.sender.send(StreamLane::Control, frame.clone());
                neighbour.watch(*link, &mut self.busy_links);
            }
        }
    }

    pub(super) fn send_packet(
        &mut self,
        link: LinkId,
        origin: Incarnation,
        lane: Option<Lane>,
        header: Bytes,
        body: Bytes,
    ) {
        let now = self.now();
        let Some(neighbour) = self.links.get_mut(&link) else { return };
        let stream = match lane {
            None | Some(Lane::High) => StreamLane::High,
            Some(Lane::Normal) => StreamLane::Normal,
            Some(Lane::Up(id)) => neighbour.tunnel(now, origin, id.wrapping_mul(2)),
            Some(Lane::Down(id)) => neighbour.tunnel(now, origin, id.wrapping_mul(2) + 1),
        };
        neighbour.sender.send_parts(stream, header, body);
        neighbour.watch(link, &mut self.busy_links);
    }

    /// Tells the engine what waits at the links, and sees to it that it hears when less does. Whether one has room again that
    /// the engine took to be full.
    pub(super) fn look_at_links(&mut self) -> bool {
        let mut eased = false;
        let Self { busy_links, links, engine, eased: easing, seldom, .. } = self;
        busy_links.retain(|link| {
            let Some(neighbour) = links.get_mut(link) else { return false };
            let queued = neighbour.backlog.bytes();
            let (before, _) = engine.link_queue(*link);
            eased |= before >= LINK_QUEUE_BYTES && queued < LINK_QUEUE_BYTES;
            engine.queued(*link, queued);
            if queued < LINK_QUEUE_BYTES {
                neighbour.waits = false;
            } else if !neighbour.waits {
                neighbour.waits = true;
                let backlog = neighbour.backlog.clone();
                easing.push(Box::pin(async move { backlog.below(LINK_QUEUE_BYTES / 2).await }));
                // Nobody hears of it before it is polled.
                seldom.ring();
            }
            neighbour.busy = queued > 0;
            neighbour.busy
        });
        eased
    }

    /// Gives up streams of tunnels that nothing is sent in.
    pub(super) fn look_at_tunnel_streams(&mut self) {
        let now = self.now();
        for neighbour in self.links.values_mut() {
            let sender = &mut neighbour.sender;
            neighbour.tunnels.retain(|key, used| {
                let idle = *used + TUNNEL_IDLE <= now;
                if idle {
                    sender.finish(StreamLane::Tunnel(*key));
                }
                !idle
            });
        }
    }
}

impl Neighbour {
    /// Has its backlog looked at until nothing waits.
    fn watch(&mut self, link: LinkId, busy: &mut Vec<LinkId>) {
        if !std::mem::replace(&mut self.busy, true) {
            busy.push(link);
        }
    }

    /// What has come next. When nothing has, the link rings once something does.
    fn poll_received(&mut self) -> Poll<Option<Received>> {
        self.receiver.poll_next_unpin(&mut Context::from_waker(&self.waker))
    }

    /// The stream of a tunnel. Two whose keys are the same share one.
    fn tunnel(&mut self, now: Duration, origin: Incarnation, id: u64) -> StreamLane {
        let key = origin.get() ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.tunnels.insert(key, now);
        StreamLane::Tunnel(key)
    }

    pub(super) fn queued(&self) -> usize {
        self.backlog.bytes()
    }
}

fn refuse(admission: Admission, code: CloseCode, text: String) {
    // If it does not wait any more, it has gone.
    let _ = admission.answer.send(Err((code, text)));
}
