//! What a gateway counts of its WebSockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use edri_protocol::Frame;

/// What became of a frame that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is a good one. What becomes of the call in it is the call's.
    Accepted,
    /// It is none, or has no place there.
    Bad,
    /// Its client sends too many in a second.
    Limited,
}

impl Taken {
    pub(super) const ALL: [(Self, &'static str); 3] =
        [(Self::Accepted, "accepted"), (Self::Bad, "bad"), (Self::Limited, "limited")];
}

/// The name of what is no frame, or none that is known.
const UNKNOWN: &str = "unknown";
/// The kinds of frames, and those that are not known.
const KINDS: usize = Frame::NAMES.len() + 1;

/// What a frame is counted as.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameKind(usize);

impl FrameKind {
    /// What is no frame, or none that is known.
    pub(crate) const UNKNOWN: Self = Self(KINDS - 1);

    pub(crate) fn of(frame: &Frame<'_>) -> Self {
        let name = frame.name();
        Frame::NAMES.iter().position(|known| *known == name).map_or(Self::UNKNOWN, Self)
    }
}

/// What is counted of all WebSockets together.
#[derive(Debug)]
pub(crate) struct WebSockets {
    received: [[AtomicU64; Taken::ALL.len()]; KINDS],
    pub(super) events: AtomicU64,
    pub(super) missed: AtomicU64,
    pub(super) begun: AtomicU64,
    pub(super) resumed: AtomicU64,
    sessions: AtomicUsize,
    away: AtomicUsize,
    pub(super) subscriptions: AtomicUsize,
}

impl Default for WebSockets {
    fn default() -> Self {
        Self {
            received: std::array::from_fn(|_| Default::default()),
            events: AtomicU64::default(),
            missed: AtomicU64::default(),
            begun: AtomicU64::default(),
            resumed: AtomicU64::default(),
            sessions: AtomicUsize::default(),
            away: AtomicUsize::default(),
            subscriptions: AtomicUsize::default(),
        }
    }
}

impl WebSockets {
    /// A frame of this kind has come.
    pub(crate) fn received(&self, kind: FrameKind, taken: Taken) {
        self.received[kind.0][taken as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// So many events were sent to subscribers, and so many left out.
    pub(crate) fn sent(&self, events: u64, missed: u64) {
        self.events.fetch_add(events, Ordering::Relaxed);
        self.missed.fetch_add(missed, Ordering::Relaxed);
    }

    /// All counts of frames that are not zero: kind, outcome, count.
    pub(super) fn frames(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        let names = Frame::NAMES.iter().copied().chain([UNKNOWN]);
        names.zip(&self.received).flat_map(|(name, counts)| {
            let count = |taken: Taken| counts[taken as usize].load(Ordering::Relaxed);
            Taken::ALL.into_iter().map(move |(taken, outcome)| (name, outcome, count(taken)))
        })
    }

    /// Sessions with a connection, and those that wait for their client to come again.
    pub(super) fn sessions(&self) -> (usize, usize) {
        let away = self.away.load(Ordering::Relaxed);
        (self.sessions.load(Ordering::Relaxed).saturating_sub(away), away)
    }
}

/// A session, counted as long as it is there.
#[derive(Debug)]
pub(crate) struct CountedSession {
    figures: Arc<WebSockets>,
    away: bool,
}

impl CountedSession {
    pub(crate) fn new(figures: &Arc<WebSockets>) -> Self {
        figures.sessions.fetch_add(1, Ordering::Relaxed);
        figures.begun.fetch_add(1, Ordering::Relaxed);
        Self { figures: Arc::clone(figures), away: false }
    }

    /// Its connection is gone, or there is one again.
    pub(crate) fn set_away(&mut self, away: bool) {
        if away && !self.away {
            self.figures.away.fetch_add(1, Ordering::Relaxed);
        } else if self.away && !away {
            self.figures.away.fetch_sub(1, Ordering::Relaxed);
        }
        self.away = away;
    }

    /// Its client came again.
    pub(crate) fn resumed(&mut self) {
        self.set_away(false);
        self.figures.resumed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for CountedSession {
    fn drop(&mut self) {
        self.set_away(false);
        self.figures.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A subscription, counted as long as it is there.
#[derive(Debug)]
pub(crate) struct CountedSubscription(Arc<WebSockets>);

impl CountedSubscription {
    pub(crate) fn new(figures: &Arc<WebSockets>) -> Self {
        figures.subscriptions.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(figures))
    }
}

impl Drop for CountedSubscription {
    fn drop(&mut self) {
        self.0.subscriptions.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_by_kind_and_by_what_became_of_them() {
        let figures = WebSockets::default();
        let request = FrameKind::of(&Frame::Request(edri_protocol::Call::default()));
        let unknown = FrameKind::of(&Frame::Unknown("new".into()));
        for (kind, taken) in [
            (request, Taken::Accepted),
            (request, Taken::Accepted),
            (request, Taken::Limited),
            (FrameKind::UNKNOWN, Taken::Bad),
            (unknown, Taken::Bad),
        ] {
            figures.received(kind, taken);
        }
        let counts: Vec<_> = figures.frames().filter(|(.., count)| *count > 0).collect();
        assert_eq!(counts, [("request", "accepted", 2), ("request", "limited", 1), ("unknown", "bad", 2)]);
        for (place, (taken, _)) in Taken::ALL.into_iter().enumerate() {
            assert_eq!(place, taken as usize);
        }
    }

    #[test]
    fn a_session_is_counted_where_it_is() {
        let figures = Arc::<WebSockets>::default();
        let mut sessions: Vec<_> = (0..3).map(|_| CountedSession::new(&figures)).collect();
        sessions[0].set_away(true);
        sessions[0].set_away(true);
        assert_eq!(figures.sessions(), (2, 1));
        sessions[0].resumed();
        sessions[1].set_away(true);
        assert_eq!(figures.sessions(), (2, 1));
        drop(sessions);
        assert_eq!(figures.sessions(), (0, 0));
    }
}
