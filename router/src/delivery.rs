//! An envelope on its way to one worker of one group.

use std::any::Any;
use std::sync::Arc;

use edri_events::{Body, Envelope};

use crate::Ticket;
use crate::divide::Hold;
use crate::tunnel::{Receiver, Sender};
use crate::turn::Turn;

/// An envelope in a group's inbox or in a worker's hands.
#[derive(Debug)]
pub struct Delivery {
    /// The event.
    pub envelope: Envelope,
    /// Who waits for what comes of it.
    pub reply: ReplyTo,
    /// Which of the group's handlers it is for.
    pub handler: u32,
    /// How often it has been given to a worker before.
    pub attempts: u32,
    /// Whether a worker that was lost may have handled it already.
    pub redelivered: bool,
    /// Says that it is there to whoever waits until nothing of its slot is.
    pub hold: Option<Hold>,
}

// Moved into an inbox and out of it for every event: within one cache line.
const _: () = assert!(size_of::<Delivery>() <= 64);

/// Who waits for what comes of a delivery.
#[derive(Debug)]
pub enum ReplyTo {
    /// Nobody: a notification.
    None,
    /// The requester.
    Response(Ticket),
    /// The opener of a tunnel, and the worker's end of it until it is accepted; behind one pointer, because tunnels are few and deliveries many.
    Tunnel(Ticket, Option<Box<Box<dyn Offer>>>),
}

/// The worker's end of a tunnel before it is accepted.
pub trait Offer: Any + Send + std::fmt::Debug {
    /// The end as a stream of bodies, for a worker without the Rust types.
    fn into_untyped(self: Box<Self>) -> (Receiver<Body>, Sender<Body>);
    /// It is accepted by a worker whose turn its opener may take.
    fn accept(&self, turn: &Arc<dyn Turn>);
}

impl Delivery {
    pub(crate) fn new(envelope: Envelope, handler: u32, reply: ReplyTo) -> Self {
        Self { envelope, reply, handler, attempts: 0, redelivered: false, hold: None }
    }

    /// A delivery that came from another node, for whichever handler of its group takes the event: see
    /// [`Router::arrive`](crate::Router::arrive). Whether it may have been handled before is the caller's to say.
    #[must_use]
    pub fn arriving(envelope: Envelope, reply: ReplyTo) -> Self {
        Self::new(envelope, 0, reply)
    }

    /// The ticket of whoever waits for the outcome.
    #[must_use]
    pub fn ticket(&self) -> Option<Ticket> {
        match self.reply {
            ReplyTo::None => None,
            ReplyTo::Response(ticket) | ReplyTo::Tunnel(ticket, _) => Some(ticket),
        }
    }
}
