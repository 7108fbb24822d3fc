//! What goes on on one connection, to tell one that is used from one that only takes a place. Pure: what time it is comes in.

use std::time::{Duration, Instant};

use crate::ApiLimits;

/// What a connection is doing.
#[derive(Debug)]
pub(crate) struct Activity {
    /// When it began, or its last request ended.
    since: Instant,
    /// Requests whose answer has not been sent to its end.
    in_flight: usize,
    /// Requests whose body has not come to its end.
    uploads: usize,
    /// The client has left in the middle of a body.
    is_left: bool,
    /// When bytes came that are no whole request yet; from the beginning, before the first request.
    head_since: Option<Instant>,
    /// When an answer was to be written and the client took none of it.
    blocked_since: Option<Instant>,
    /// Requests share the connection: what comes while there is none may be anything.
    is_shared: bool,
}

/// What is to become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It stays; look again after this time.
    Stays(Duration),
    /// Nobody uses it: it ends in good order.
    Idle,
    /// The head of a request takes too long.
    SlowHead,
    /// The client takes nothing of its answer.
    Blocked,
    /// The client is gone, and nobody waits for the answer.
    Left,
}

impl Activity {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            in_flight: 0,
            uploads: 0,
            is_left: false,
            head_since: Some(now),
            blocked_since: None,
            is_shared: false,
        }
    }

    /// Bytes came.
    pub(crate) fn read(&mut self, now: Instant) {
        if self.in_flight == 0 && !self.is_shared {
            self.head_since.get_or_insert(now);
        }
    }

    /// Bytes were written, or could not be.
    pub(crate) fn written(&mut self, could: bool, now: Instant) {
        if could {
            self.blocked_since = None;
        } else {
            self.blocked_since.get_or_insert(now);
        }
    }

    /// A request has come.
    pub(crate) fn begin(&mut self, is_shared: bool) {
        self.is_shared = is_shared;
        self.head_since = None;
        self.in_flight += 1;
    }

    /// A body begins, or has ended.
    pub(crate) fn upload(&mut self, begins: bool) {
        self.uploads = if begins { self.uploads + 1 } else { self.uploads.saturating_sub(1) };
    }

    /// A body broke off. Where requests share the connection it may be only that body.
    pub(crate) fn broke_off(&mut self) {
        self.is_left = !self.is_shared;
    }

    /// Whether a body is on its way: while nobody takes it, nothing is read, and nothing else tells that its sender is gone.
    pub(crate) fn has_uploads(&self) -> bool {
        self.uploads > 0
    }

    /// Its answer was sent, or nobody waits for it.
    pub(crate) fn end(&mut self, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.since = now;
    }

    pub(crate) fn verdict(&self, now: Instant, limits: &ApiLimits) -> Verdict {
        let over =
            |since: Option<Instant>, limit| since.is_some_and(|since| now.saturating_duration_since(since) >= limit);
        if self.is_left && self.in_flight > 0 {
            return Verdict::Left;
        }
        if over(self.blocked_since, limits.send_idle) {
            return Verdict::Blocked;
        }
        if self.in_flight == 0 && over(self.head_since, limits.head_time) {
            return Verdict::SlowHead;
        }
        if self.in_flight == 0 && over(Some(self.since), limits.idle_time) {
            return Verdict::Idle;
        }
        let until = |since: Instant, limit: Duration| (since + limit).saturating_duration_since(now);
        let idle = if self.in_flight == 0 { until(self.since, limits.idle_time) } else { limits.idle_time };
        let head = self.head_since.map_or(limits.head_time, |since| until(since, limits.head_time));
        let blocked = self.blocked_since.map_or(limits.send_idle, |since| until(since, limits.send_idle));
        Verdict::Stays(idle.min(head).min(blocked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_judged_by_what_it_does() {
        let limits = ApiLimits::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let stays = |activity: &Activity, now| matches!(activity.verdict(now, &limits), Verdict::Stays(_));
        let mut activity = Activity::new(start);
        assert_eq!(activity.verdict(at(4), &limits), Verdict::Stays(Duration::from_secs(6)));
        assert_eq!(activity.verdict(at(10), &limits), Verdict::SlowHead, "it has not said anything");
        activity.read(at(9));
        assert_eq!(activity.verdict(at(10), &limits), Verdict::SlowHead, "a byte makes no difference");
        activity.begin(false);
        assert!(stays(&activity, at(1_000)), "its answer takes its time");
        activity.end(at(1_000));
        assert!(stays(&activity, at(1_059)));
        assert_eq!(activity.verdict(at(1_060), &limits), Verdict::Idle);
        activity.read(at(1_050));
        assert!(stays(&activity, at(1_059)));
        assert_eq!(activity.verdict(at(1_060), &limits), Verdict::SlowHead, "a second head is as slow as a first");
        activity.begin(false);
        activity.written(false, at(1_100));
        activity.written(false, at(1_200));
        assert_eq!(activity.verdict(at(1_220), &limits), Verdict::Blocked);
        activity.written(true, at(1_220));
        assert!(stays(&activity, at(1_220)));
    }

    #[test]
    fn who_leaves_in_the_middle_of_a_body_is_not_answered() {
        let (limits, now) = (ApiLimits::default(), Instant::now());
        for (is_shared, left) in [(false, true), (true, false)] {
            let mut activity = Activity::new(now);
            activity.begin(is_shared);
            activity.upload(true);
            assert!(activity.has_uploads() && activity.verdict(now, &limits) != Verdict::Left);
            activity.broke_off();
            activity.upload(false);
            assert!(!activity.has_uploads());
            assert_eq!(activity.verdict(now, &limits) == Verdict::Left, left, "shared: {is_shared}");
        }
    }

    #[test]
    fn what_comes_over_a_shared_connection_is_not_taken_for_a_head() {
        let limits = ApiLimits::default();
        let start = Instant::now();
        let mut activity = Activity::new(start);
        activity.begin(true);
        activity.end(start);
        activity.read(start);
        let later = start + Duration::from_secs(59);
        assert_eq!(activity.verdict(later, &limits), Verdict::Stays(Duration::from_secs(1)));
        assert_eq!(activity.verdict(later + Duration::from_secs(1), &limits), Verdict::Idle);
    }
}
