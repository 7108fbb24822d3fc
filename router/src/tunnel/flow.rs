//! One tunnel as it runs between local halves and the other side: what may be sent, what may come, and how it is over.
//!
//! Counts and a queue behind a short lock, and a waker for each who waits. Nothing here runs by itself.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};

use edri_events::Body;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::TunnelError;
use super::tunnels::{Grant, Opener};

/// The state of one tunnel. Shared by its two pumps and by those who tell it what came.
pub(super) struct Flow {
    opener: Opener,
    // Held to look at or change the counts and the queue.
    state: Mutex<State>,
    outward: AtomicWaker,
    inward: AtomicWaker,
    sent: AtomicWaker,
    taken: AtomicWaker,
}

struct State {
    /// What may still be sent. The last item may take more bytes than were left.
    credit: Balance,
    /// What may still come.
    window: Balance,
    queue: VecDeque<Body>,
    /// Whether the other side has given any since.
    granted: bool,
    /// Nothing more comes.
    finished: bool,
    /// The local end was told so.
    told: bool,
    /// All that is to be sent has been.
    sent: bool,
    /// The local end does not read any more.
    deaf: bool,
    over: Option<Over>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Balance {
    items: i64,
    bytes: i64,
}

impl Balance {
    fn add(&mut self, grant: Grant) {
        let most = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.items = self.items.saturating_add(most(grant.items));
        self.bytes = self.bytes.saturating_add(most(grant.bytes));
    }

    /// Takes one item's share; false when there is nothing left to take from.
    fn take(&mut self, bytes: u64) -> bool {
        let may = self.may();
        if may {
            self.items -= 1;
            self.bytes = self.bytes.saturating_sub_unsigned(bytes);
        }
        may
    }

    fn may(self) -> bool {
        self.items > 0 && self.bytes > 0
    }
}

/// How a tunnel is over on this side.
#[derive(Debug, Clone)]
pub(super) enum Over {
    /// Its worker is done, or lost: its outcome says which.
    Done,
    /// It broke.
    Broken(TunnelError),
}

/// What there is for the local end.
pub(super) enum Inward {
    /// An item.
    Item(Body),
    /// Nothing more comes.
    Finished,
    /// Neither items nor an end: the tunnel is over.
    Over(Over),
}

impl Flow {
    /// A tunnel that may send `credit` and take `window`.
    pub(super) fn new(opener: Opener, credit: Grant, window: Grant) -> Self {
        let mut state = State {
            credit: Balance::default(),
            window: Balance::default(),
            queue: VecDeque::new(),
            granted: false,
            finished: false,
            told: false,
            sent: false,
            deaf: false,
            over: None,
        };
        state.credit.add(credit);
        state.window.add(window);
        Self {
            opener,
            state: Mutex::new(state),
            outward: AtomicWaker::new(),
            inward: AtomicWaker::new(),
            sent: AtomicWaker::new(),
            taken: AtomicWaker::new(),
        }
    }

    // ---- what came -------------------------------------------------------------------------------------------------

    /// Queues an item that came; false when it came without credit.
    pub(super) fn push(&self, item: Body) -> bool {
        let mut state = self.state.lock();
        if state.over.is_some() || state.finished {
            return true;
        }
        if !state.window.take(item.bytes.len() as u64) {
            return false;
        }
        state.queue.push_back(item);
        drop(state);
        self.inward.wake();
        true
    }

    /// Takes note that more may be sent.
    pub(super) fn add_credit(&self, more: Grant) {
        let first = {
            let mut state = self.state.lock();
            state.credit.add(more);
            !std::mem::replace(&mut state.granted, true)
        };
        self.outward.wake();
        if first {
            self.taken.wake();
        }
    }

    /// Takes note that nothing more comes.
    pub(super) fn finished(&self) {
        self.state.lock().finished = true;
        self.inward.wake();
    }

    // ---- for the outward pump --------------------------------------------------------------------------------------

    /// Ready once an item may be sent, or with how the tunnel is over.
    pub(super) async fn credit_for_one(&self) -> Option<Over> {
        poll_fn(|cx| {
            self.outward.register(cx.waker());
            let state = self.state.lock();
            match &state.over {
                Some(over) => Poll::Ready(Some(over.clone())),
                None if state.credit.may() => Poll::Ready(None),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Takes note of an item of so many bytes that was sent.
    pub(super) fn took_credit(&self, bytes: u64) {
        self.state.lock().credit.take(bytes);
    }

    /// Takes note that the local end sends nothing more.
    pub(super) fn all_sent(&self) {
        self.state.lock().sent = true;
        self.sent.wake();
    }

    /// Whether [`Flow::all_sent`] was called.
    pub(super) fn is_sent(&self) -> bool {
        self.state.lock().sent
    }

    /// Ready once the tunnel is over.
    pub(super) async fn outward_over(&self) -> Over {
        poll_fn(|cx| {
            self.outward.register(cx.waker());
            self.state.lock().over.clone().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    // ---- for the inward pump ---------------------------------------------------------------------------------------

    /// What there is for the local end, in the order in which it came.
    pub(super) fn poll_inward(&self, cx: &mut Context<'_>) -> Poll<Inward> {
        self.inward.register(cx.waker());
        let mut state = self.state.lock();
        if let Some(over @ Over::Broken(_)) = &state.over {
            return Poll::Ready(Inward::Over(over.clone()));
        }
        if let Some(item) = state.queue.pop_front() {
            return Poll::Ready(Inward::Item(item));
        }
        if state.finished && !state.told {
            state.told = true;
            return Poll::Ready(Inward::Finished);
        }
        match &state.over {
            Some(over) => Poll::Ready(Inward::Over(over.clone())),
            None => Poll::Pending,
        }
    }

    /// Takes note of credit that is given back; false when nobody is there to use it.
    pub(super) fn give(&self, used: Grant) -> bool {
        let mut state = self.state.lock();
        state.window.add(used);
        state.over.is_none() && !state.finished
    }

    /// Takes note that the local end reads no more.
    pub(super) fn set_deaf(&self) {
        self.state.lock().deaf = true;
    }

    /// Whether [`Flow::set_deaf`] was called.
    pub(super) fn is_deaf(&self) -> bool {
        self.state.lock().deaf
    }

    /// Ready once the tunnel broke; what is merely over still gives what came to the local end.
    pub(super) async fn inward_broken(&self) -> TunnelError {
        poll_fn(|cx| {
            self.inward.register(cx.waker());
            match &self.state.lock().over {
                Some(Over::Broken(error)) => Poll::Ready(error.clone()),
                _ => Poll::Pending,
            }
        })
        .await
    }

    // ---- for who runs it -------------------------------------------------------------------------------------------

    /// Ready once all is sent, or the tunnel is over. For one waiter at a time.
    pub(super) async fn sent(&self) {
        poll_fn(|cx| {
            self.sent.register(cx.waker());
            let state = self.state.lock();
            if state.sent || state.over.is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Ready once the other side has given credit, or the tunnel is over. For one waiter at a time.
    pub(super) async fn taken(&self) {
        poll_fn(|cx| {
            self.taken.register(cx.waker());
            let state = self.state.lock();
            if state.granted || state.over.is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// The tunnel is over, in the way that the local end is to see.
    pub(super) fn over(&self) {
        self.end(match self.opener {
            Opener::Here => Over::Done,
            // The worker that may still be there sees its opener gone.
            Opener::There => Over::Broken(TunnelError::PeerDropped),
        });
    }

    /// Ends both pumps; whether they were running. What is over is not over again, but it may break.
    pub(super) fn end(&self, over: Over) -> bool {
        let dropped = {
            let mut state = self.state.lock();
            if matches!((&state.over, &over), (Some(Over::Broken(_)), _) | (Some(_), Over::Done)) {
                return false;
            }
            let dropped = match over {
                Over::Broken(_) => std::mem::take(&mut state.queue),
                Over::Done => VecDeque::new(),
            };
            state.over = Some(over);
            dropped
        };
        drop(dropped);
        self.outward.wake();
        self.inward.wake();
        self.sent.wake();
        self.taken.wake();
        true
    }
}
