//! A worker type and its handlers with the types taken off, so that hosts and managers are compiled once.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use edri_events::{CodecError, DescriptorRef, Envelope, Event, Failure, Pattern, Value};
use edri_router::Selection;
use futures_util::future::BoxFuture;

use crate::host::{Desk, attend};
use crate::{Context, Handle, HandleAny, HandleConcurrent, Worker};

/// What comes of calling a handler.
pub type Outcome = Result<Value, HandlerError>;

/// Why a handler gave no value.
#[derive(Debug)]
pub enum HandlerError {
    /// It said so.
    Failed(Failure),
    /// The payload is not what its event type says; it was not called.
    Invalid(CodecError),
}

/// Makes instances.
pub type Factory = Arc<dyn Fn() -> Box<dyn Instance> + Send + Sync>;

/// A worker instance without its type.
pub trait Instance: Send {
    /// [`Worker::started`].
    fn started<'a>(&'a mut self, cx: &'a mut Context) -> BoxFuture<'a, Result<(), Failure>>;
    /// [`Worker::stopping`].
    fn stopping<'a>(&'a mut self, cx: &'a mut Context) -> BoxFuture<'a, ()>;
    /// Whether the handler of this number takes `&self`.
    fn is_concurrent(&self, handler: u32) -> bool;
    /// Calls a handler that takes `&mut self` with the delivery in hand at `desk`, and with those that the desk takes in
    /// hand after it, waiting for them: one future, and one allocation, for all of them until one comes for another handler, or
    /// one is not simply done. No concurrent handler may be running.
    fn handle<'a>(&'a mut self, handler: u32, desk: &'a mut Desk) -> BoxFuture<'a, ()>;
    /// Calls a handler that takes `&self`; the context comes back with the outcome.
    fn handle_beside(&self, handler: u32, event: Envelope, cx: Context) -> BoxFuture<'static, Outcome>;
}

/// So many hold an event that is for one handler alone: its delivery and its context.
const HOLDERS_ALONE: usize = 2;

type Exclusive<W> = for<'a> fn(&'a mut W, &'a mut Desk) -> BoxFuture<'a, ()>;
type Beside<W> = fn(Arc<W>, Envelope, Context) -> BoxFuture<'static, Outcome>;

type Share<W> = fn(W, Arc<[Handler<W>]>) -> Box<dyn Instance>;

enum Handler<W> {
    Exclusive(Exclusive<W>),
    Beside(Beside<W>),
}

/// A worker type with the handlers it is to be used for.
pub struct Blueprint<W> {
    handlers: Vec<Handler<W>>,
    events: Vec<DescriptorRef>,
    selections: Vec<Selection>,
    /// Set with the first concurrent handler: only those need the worker to be shared, and only they have it `Sync`.
    share: Option<Share<W>>,
}

impl<W: Worker> Default for Blueprint<W> {
    fn default() -> Self {
        Self { handlers: Vec::new(), events: Vec::new(), selections: Vec::new(), share: None }
    }
}

impl<W: Worker> Blueprint<W> {
    /// Adds the handler for `E`.
    pub fn handles<E: Event>(&mut self)
    where
        W: Handle<E>,
    {
        self.add_typed::<E>(Handler::Exclusive(|worker, desk| {
            Box::pin(async move {
                while poll_fn(|cx| desk.poll_hand(cx)).await
                    && let Some((event, cx, consumer)) = desk.in_hand()
                {
                    let mut waited = false;
                    let mut place = None;
                    // Whoever shares it with nobody need not keep what is decoded for others.
                    let payload = match event.holders() {
                        ..=HOLDERS_ALONE => event.payload_once::<E>(&mut place),
                        _ => event.payload::<E>(),
                    };
                    let event = match payload {
                        Ok(event) => event,
                        Err(error) => {
                            desk.give_up(HandlerError::Invalid(error));
                            continue;
                        }
                    };
                    let handled = {
                        // Polled where it is: to move it would cost more than many a handler.
                        let mut handling = pin!(worker.handle(event, cx));
                        poll_fn(|cx| attend(handling.as_mut(), cx, consumer, &mut waited)).await
                    };
                    match handled {
                        Ok(value) => desk.put_down(|| Value::typed(value), waited),
                        Err(failure) => desk.give_up(HandlerError::Failed(failure)),
                    }
                }
            })
        }));
    }

    /// Adds the concurrent handler for `E`.
    pub fn handles_concurrently<E: Event>(&mut self)
    where
        W: HandleConcurrent<E>,
    {
        self.share = Some(|worker, handlers| Box::new(Shared { worker: Arc::new(worker), handlers }));
        self.add_typed::<E>(Handler::Beside(|worker, event, mut cx| {
            Box::pin(async move {
                let event = event.payload::<E>().map_err(HandlerError::Invalid)?;
                worker.handle(event, &mut cx).await.map(Value::typed).map_err(HandlerError::Failed)
            })
        }));
    }

    /// Adds the untyped handler for events whose name `pattern` selects. A plain name is also answered when it is a
    /// request or a tunnel; a pattern with wildcards only gets notifications.
    pub fn handles_any(&mut self, pattern: Pattern)
    where
        W: HandleAny,
    {
        self.add(
            Selection::new(pattern),
            Handler::Exclusive(|worker, desk| {
                Box::pin(async move {
                    while poll_fn(|cx| desk.poll_hand(cx)).await
                        && let Some((event, cx, consumer)) = desk.in_hand()
                    {
                        let mut waited = false;
                        let handled = {
                            let mut handling = pin!(worker.handle(event, cx));
                            poll_fn(|cx| attend(handling.as_mut(), cx, consumer, &mut waited)).await
                        };
                        match handled {
                            Ok(value) => desk.put_down(|| value.unwrap_or_else(|| Value::typed(())), waited),
                            Err(failure) => desk.give_up(HandlerError::Failed(failure)),
                        }
                    }
                })
            }),
        );
    }

    /// Declares an event that the worker handles without its Rust type.
    pub fn declares(&mut self, event: DescriptorRef) {
        self.events.push(event);
    }

    fn add_typed<E: Event>(&mut self, handler: Handler<W>) {
        let descriptor = DescriptorRef::of::<E>();
        let selection = Selection::new(descriptor.name().clone().into());
        self.events.push(descriptor);
        self.add(selection, handler);
    }

    fn add(&mut self, mut selection: Selection, handler: Handler<W>) {
        // A manager has far fewer handlers than a u32 counts: each is a call in somebody's code.
        selection.handler = self.handlers.len() as u32;
        self.selections.push(selection);
        self.handlers.push(handler);
    }

    /// The events that are handled by their Rust types, or declared beside them.
    #[must_use]
    pub fn events(&self) -> &[DescriptorRef] {
        &self.events
    }

    /// Whether some of the handlers run beside one another.
    #[must_use]
    pub fn is_concurrent(&self) -> bool {
        self.share.is_some()
    }

    /// What the handlers want.
    #[must_use]
    pub fn selections(&self) -> &[Selection] {
        &self.selections
    }

    /// Takes the type off: what makes instances, given what makes workers.
    #[must_use]
    pub fn factory(self, make: impl Fn() -> W + Send + Sync + 'static) -> Factory {
        let handlers: Arc<[Handler<W>]> = self.handlers.into();
        match self.share {
            Some(share) => Arc::new(move || share(make(), Arc::clone(&handlers))),
            None => Arc::new(move || Box::new(Own { worker: make(), handlers: Arc::clone(&handlers) })),
        }
    }
}

/// An instance all of whose handlers take `&mut self`.
struct Own<W> {
    worker: W,
    handlers: Arc<[Handler<W>]>,
}

impl<W: Worker> Instance for Own<W> {
    fn started<'a>(&'a mut self, cx: &'a mut Context) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(self.worker.started(cx))
    }

    fn stopping<'a>(&'a mut self, cx: &'a mut Context) -> BoxFuture<'a, ()> {
        Box::pin(self.worker.stopping(cx))
    }

    fn is_concurrent(&self, _: u32) -> bool {
        false
    }

    fn handle<'a>(&'a mut self, handler: u32, desk: &'a mut Desk) -> BoxFuture<'a, ()> {
        match &self.handlers[handler as usize] {
            Handler::Exclusive(handle) => handle(&mut self.worker, desk),
            Handler::Beside(_) => unreachable!("the factory shares a worker that has a concurrent handler"),
        }
    }

    fn handle_beside(&self, _: u32, _: Envelope, _: Context) -> BoxFuture<'static, Outcome> {
        unreachable!("no handler of this instance is concurrent")
    }
}

/// An instance with handlers that take `&self`.
struct Shared<W> {
    worker: Arc<W>,
    handlers: Arc<[Handler<W>]>,
}

impl<W> Shared<W> {
    fn alone(&mut self) -> &mut W {
        Arc::get_mut(&mut self.worker).expect("the host lets concurrent handlers end first")
    }
}

impl<W: Worker + Sync> Instance for Shared<W> {
    fn started<'a>(&'a mut self, cx: &'a mut Context) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(self.alone().started(cx))
    }

    fn stopping<'a>(&'a mut self, cx: &'a mut Context) -> BoxFuture<'a, ()> {
        Box::pin(self.alone().stopping(cx))
    }

    fn is_concurrent(&self, handler: u32) -> bool {
        matches!(self.handlers[handler as usize], Handler::Beside(_))
    }

    fn handle<'a>(&'a mut self, handler: u32, desk: &'a mut Desk) -> BoxFuture<'a, ()> {
        match &self.handlers[handler as usize] {
            Handler::Exclusive(handle) => {
                let handle = *handle;
                handle(self.alone(), desk)
            }
            Handler::Beside(_) => unreachable!("the host asked whether the handler is concurrent"),
        }
    }

    fn handle_beside(&self, handler: u32, event: Envelope, cx: Context) -> BoxFuture<'static, Outcome> {
        match &self.handlers[handler as usize] {
            Handler::Beside(handle) => handle(Arc::clone(&self.worker), event, cx),
            Handler::Exclusive(_) => unreachable!("the host asked whether the handler is concurrent"),
        }
    }
}

impl<W> std::fmt::Debug for Blueprint<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blueprint").field("events", &self.events).field("selections", &self.selections).finish()
    }
}
