//! What the pending table promises: one outcome a ticket, by its deadline, and nothing after it was given up.

use edri_events::Value;
use futures_util::FutureExt;
use futures_util::task::noop_waker;

use super::*;

impl AsRef<Pending> for Pending {
    fn as_ref(&self) -> &Pending {
        self
    }
}

#[test]
fn a_late_outcome_finds_nobody_and_is_counted() {
    let pending = Arc::new(Pending::new(10));
    let first = pending.insert(None).expect("room");
    drop(Waiting::new(Arc::clone(&pending), first));
    let second = pending.insert(None).expect("room");
    assert_eq!(first.slot, second.slot, "the slot is used again");
    assert!(!pending.is_wanted(first));
    assert!(pending.complete(first, Ok(Value::typed(1_u8))).is_err());
    assert_eq!(pending.late(), 1);
    assert!(pending.complete(second, Ok(Value::typed(2_u8))).is_ok());
    let outcome = Waiting::new(Arc::clone(&pending), second).now_or_never().expect("done");
    assert_eq!(outcome.expect("answered").take::<u8>().expect("a u8"), 2);
    assert_eq!(pending.open(), 0);
}

#[test]
fn no_more_are_open_than_may_be() {
    let pending = Pending::new(2);
    let first = pending.insert(None).expect("room");
    assert!(pending.insert(None).is_some());
    assert!(pending.insert(None).is_none());
    pending.cancel(first);
    assert!(pending.insert(None).is_some());
}

#[test]
fn a_sweep_ends_what_is_due_and_names_the_next() {
    let pending = Pending::new(10);
    let now = Instant::now();
    let due = pending.insert(Some(now)).expect("room");
    let later = now + Duration::from_secs(5);
    let waits = pending.insert(Some(later)).expect("room");
    assert_eq!(pending.sweep(now + Duration::from_millis(1)), Some(pending.millis_until(later)));
    let waker = noop_waker();
    let mut cx = Context::from_waker(&waker);
    assert!(matches!(pending.poll_outcome(due, &mut cx), Poll::Ready(Err(RequestError::TimedOut(_)))));
    assert!(pending.poll_outcome(waits, &mut cx).is_pending());
}

#[test]
fn milliseconds_are_rounded_up_and_never_said_to_be_no_deadline() {
    let of = |nanos| millis(Duration::from_nanos(nanos));
    assert_eq!([0, 1, 999_999, 1_000_000, 1_000_001].map(of), [0, 1, 1, 1, 2]);
    assert_eq!([1_999_999_999, 2_000_000_000, 2_000_000_001].map(of), [2000, 2000, 2001]);
    assert_eq!(millis(Duration::MAX), NEVER - 1);
}

#[derive(Default)]
struct Heard(Mutex<Vec<Ticket>>);

impl Forgone for Heard {
    fn forgone(&self, ticket: Ticket) {
        self.0.lock().push(ticket);
    }
}

#[test]
fn who_watches_a_requester_hears_once_that_it_gave_up_and_nothing_when_it_was_answered() {
    let pending = Arc::new(Pending::new(10));
    let heard = Arc::new(Heard::default());
    pending.set_forgone(Arc::clone(&heard) as Arc<dyn Forgone>);
    let take = || std::mem::take(&mut *heard.0.lock());
    let now = Instant::now();
    let open = |deadline| {
        let ticket = pending.insert(deadline).expect("room");
        assert!(pending.watch(ticket));
        Waiting::new(Arc::clone(&pending), ticket)
    };
    let number = |waiting: &Waiting<Arc<Pending>>| waiting.ticket.expect("waits");

    let dropped = open(None);
    let ticket = number(&dropped);
    drop(dropped);
    assert_eq!(take(), [ticket]);
    assert!(!pending.watch(ticket), "there is nobody to watch");

    let swept = open(Some(now));
    let ticket = number(&swept);
    pending.sweep(now + Duration::from_millis(1));
    assert_eq!(take(), [ticket]);
    drop(swept);

    let answered = open(None);
    assert!(pending.complete(number(&answered), Ok(Value::typed(1_u8))).is_ok());
    drop(answered);

    let unwatched = pending.insert(None).expect("room");
    pending.cancel(unwatched);
    assert_eq!(take(), []);

    let ended = open(None);
    pending.end(|| RequestError::Stopping);
    assert_eq!(take(), [number(&ended)]);
}

#[test]
fn a_ticket_is_a_number_and_any_other_number_finds_nobody() {
    let pending = Pending::new(10);
    let ticket = pending.insert(None).expect("room");
    assert_eq!(Ticket::from_number(ticket.to_number()), ticket);
    for number in [u64::MAX, ticket.to_number() + 1, 1 << 63, 0xffff_0000_0000] {
        let other = Ticket::from_number(number);
        assert!(!pending.is_wanted(other) && !pending.watch(other) && !pending.forgo(other));
        assert!(pending.complete(other, Ok(Value::typed(1_u8))).is_err());
        pending.cancel(other);
        pending.drop_call(other);
    }
    assert!(pending.is_wanted(ticket));
}

#[derive(Default)]
struct Told(Mutex<Vec<(u64, String)>>);

impl Outcomes for Told {
    fn outcome(&self, call: u64, outcome: Outcome) {
        let code = outcome.map_or_else(|error| error.code().to_owned(), |_| "value".to_owned());
        self.0.lock().push((call, code));
    }
}

#[test]
fn a_call_that_is_forgone_is_seen_by_its_worker_and_answered_all_the_same() {
    let pending = Pending::new(10);
    let told = Arc::new(Told::default());
    pending.set_outcomes(Arc::clone(&told) as Arc<dyn Outcomes>);
    let (first, second) = (pending.await_call(7).expect("room"), pending.await_call(8).expect("room"));
    assert!(pending.is_wanted(first) && !pending.watch(first));
    assert!(pending.forgo(first));
    assert!(!pending.is_wanted(first) && pending.is_wanted(second));
    assert!(pending.complete(first, Ok(Value::typed(1_u8))).is_ok());
    assert!(!pending.forgo(first), "it is over");
    pending.end(|| RequestError::Stopping);
    assert_eq!(*told.0.lock(), [(7, "value".to_owned()), (8, "stopping".to_owned())]);
    assert_eq!(pending.open(), 0);
}

/// Requesters, those who answer and the sweeper at once, on threads of their own. Some requesters give up, some have a deadline that passes.
#[test]
fn every_ticket_has_one_end_whoever_comes_first() {
    const REQUESTERS: u64 = 3;
    const EACH: u64 = 3000;
    let pending = Arc::new(Pending::new(64));
    let (ask, asked) = std::sync::mpsc::sync_channel::<(Ticket, u64)>(16);
    let (done, over) = (Arc::new(AtomicU64::new(0)), |done: &AtomicU64| done.load(Ordering::SeqCst) == REQUESTERS);
    std::thread::scope(|scope| {
        for who in 0..REQUESTERS {
            let (pending, ask, done) = (Arc::clone(&pending), ask.clone(), Arc::clone(&done));
            scope.spawn(move || {
                for round in 0..EACH {
                    let number = who * EACH + round;
                    let deadline =
                        number.is_multiple_of(3).then(|| Instant::now() + Duration::from_micros(number % 1500));
                    let ticket = pending.insert(deadline).expect("room");
                    assert!(pending.is_wanted(ticket) || deadline.is_some());
                    let mut waiting = Waiting::new(Arc::clone(&pending), ticket);
                    ask.send((ticket, number)).expect("answered as long as anybody asks");
                    if number.is_multiple_of(7) {
                        continue;
                    }
                    let limit = Instant::now() + Duration::from_secs(20);
                    let outcome = loop {
                        if let Some(outcome) = waiting.take() {
                            break outcome;
                        }
                        assert!(Instant::now() < limit, "no outcome");
                        std::thread::yield_now();
                    };
                    match outcome {
                        Ok(value) => assert_eq!(value.take::<u64>().expect("a number"), number, "somebody else's"),
                        Err(error) => assert!(deadline.is_some() && error.code() == "timed_out", "{error}"),
                    }
                    assert!(!pending.is_wanted(ticket));
                }
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        drop(ask);
        let (sweeping, until) = (Arc::clone(&pending), Arc::clone(&done));
        scope.spawn(move || {
            let limit = Instant::now() + Duration::from_secs(60);
            while !over(&until) && Instant::now() < limit {
                sweeping.sweep(Instant::now());
            }
        });
        for (ticket, number) in asked {
            if number.is_multiple_of(5) {
                std::thread::yield_now();
            }
            // It may have given up, or its time be over.
            let _ = pending.complete(ticket, Ok(Value::typed(number)));
            assert!(pending.complete(ticket, Ok(Value::typed(u64::MAX))).is_err(), "a ticket is answered once");
        }
    });
    assert_eq!(pending.open(), 0);
}
