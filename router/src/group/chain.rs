//! Workers of one group that wake one another.
//!
//! A publisher that has something for each partition of a group would wake as many tasks, and the runtime a thread for them. Where
//! handling an event is less work than bringing it to another core, that is the slowest way there is: so the publisher wakes one,
//! and each that was woken wakes the next before it looks into its own inbox.
//!
//! ```text
//! publisher ── wakes ──▶ 3 ── wakes ──▶ 1 ── wakes ──▶ 4      while `woken` is set, and nobody else is woken
//!     └─ fills 3, 1, 4
//! ```

use std::sync::atomic::{AtomicUsize, Ordering, fence};

use crate::queue::Queue;

/// What the inboxes of a group have in common.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// Of the one that was woken and has not passed it on: one more than the number of its inbox, otherwise 0. Set before it is woken.
    woken: AtomicUsize,
}

impl Chain {
    /// Has the consumer of an inbox woken that was filled: now, or by the one that was woken before.
    #[inline]
    pub(super) fn wake<T>(&self, inbox: usize, inboxes: &[Queue<T>]) {
        let filled = &inboxes[inbox];
        if !filled.has_sleeper() {
            return;
        }
        if !filled.is_slight() {
            filled.wake_one();
            return;
        }
        // Whoever was woken clears it before the look at the inboxes, and so sees what was filled.
        if self.take(inbox) && !filled.wake_one() {
            self.pass_on(inbox, inboxes);
        }
    }

    /// Wakes the next. Called by the task of this inbox whenever the runtime runs it, and when it ends.
    pub(super) fn pass_on<T>(&self, inbox: usize, inboxes: &[Queue<T>]) {
        let mut inbox = inbox;
        while self.woken.compare_exchange(inbox + 1, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            fence(Ordering::SeqCst);
            let left = |inbox: &Queue<T>| inbox.len() > 0 && inbox.is_slight() && inbox.has_sleeper();
            let Some(next) = inboxes.iter().position(left) else { return };
            if !self.take(next) || inboxes[next].wake_one() {
                return;
            }
            inbox = next;
        }
    }

    /// Makes this the one that was woken, unless there is one.
    fn take(&self, inbox: usize) -> bool {
        self.woken.compare_exchange(0, inbox + 1, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;
    use std::task::{Context, Poll, Wake, Waker};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::queue::Consumer;
    use crate::turn::Turn;

    /// A worker that nobody can run but its own task.
    struct Own;

    impl Turn for Own {
        fn is_quick(&self) -> bool {
            true
        }

        fn take(&self) -> bool {
            false
        }
    }

    #[derive(Default)]
    struct Woken(AtomicU64);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn consumer(inbox: &Queue<u64>, took: Duration) -> Consumer<u64, &Queue<u64>> {
        let mut consumer = Consumer::new(inbox);
        consumer.set_turn(Arc::new(Own));
        consumer.pace(took);
        consumer
    }

    fn fill(inboxes: &[Queue<u64>], chain: &Chain, inbox: usize, item: u64) {
        inboxes[inbox].try_claim().expect("room").put(item);
        chain.wake(inbox, inboxes);
    }

    #[test]
    fn one_is_woken_and_each_wakes_the_next_unless_it_is_not_slight() {
        let inboxes: Vec<_> = (0..4).map(|_| Queue::new(4)).collect();
        let chain = Chain::default();
        let took = [Duration::ZERO, Duration::ZERO, Duration::from_secs(1), Duration::ZERO];
        let mut consumers: Vec<_> = inboxes.iter().zip(took).map(|(inbox, took)| consumer(inbox, took)).collect();
        let counts: Vec<_> = (0..4).map(|_| Arc::new(Woken::default())).collect();
        let wakers: Vec<_> = counts.iter().map(|count| Waker::from(Arc::clone(count))).collect();
        let woken = || counts.iter().map(|count| count.0.load(Ordering::Relaxed)).collect::<Vec<_>>();
        for (consumer, waker) in consumers.iter_mut().zip(&wakers) {
            assert!(consumer.poll_next(&mut Context::from_waker(waker)).is_pending());
        }

        for inbox in [1, 0, 2, 3, 1] {
            fill(&inboxes, &chain, inbox, 7);
        }
        assert_eq!(woken(), [0, 1, 1, 0], "the third is not slight");
        // Who was not woken for others wakes nobody.
        chain.pass_on(2, &inboxes);
        assert_eq!(woken(), [0, 1, 1, 0]);
        chain.pass_on(1, &inboxes);
        assert_eq!(woken(), [1, 1, 1, 0]);
        // It had a turn that nobody woke it for, and sleeps again.
        assert_eq!(consumers[3].try_next(), Some(7));
        assert!(consumers[3].poll_next(&mut Context::from_waker(&wakers[3])).is_pending());
        fill(&inboxes, &chain, 3, 8);
        assert_eq!(woken(), [1, 1, 1, 0]);
        chain.pass_on(0, &inboxes);
        assert_eq!(woken(), [1, 1, 1, 1]);
        chain.pass_on(3, &inboxes);
        assert_eq!(woken(), [1, 1, 1, 1], "the others are awake");

        // And once more from the beginning.
        assert_eq!(consumers[1].poll_next(&mut Context::from_waker(&wakers[1])), Poll::Ready(Some(7)));
        assert_eq!(consumers[1].poll_next(&mut Context::from_waker(&wakers[1])), Poll::Ready(Some(7)));
        assert!(consumers[1].poll_next(&mut Context::from_waker(&wakers[1])).is_pending());
        fill(&inboxes, &chain, 1, 9);
        assert_eq!(woken(), [1, 2, 1, 1]);
    }

    struct Unpark(thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    #[test]
    fn nobody_sleeps_on_with_something_to_do_whoever_fills_at_the_same_time() {
        const EACH: u64 = 20_000;
        let inboxes: Vec<_> = (0..3).map(|_| Queue::new(8)).collect();
        let (chain, began) = (Chain::default(), Instant::now());
        thread::scope(|scope| {
            let consuming: Vec<_> = (0..inboxes.len())
                .map(|inbox| {
                    let (inboxes, chain) = (&inboxes, &chain);
                    scope.spawn(move || {
                        let mut consumer = consumer(&inboxes[inbox], Duration::ZERO);
                        let waker = Waker::from(Arc::new(Unpark(thread::current())));
                        let mut taken = 0;
                        loop {
                            chain.pass_on(inbox, inboxes);
                            loop {
                                match consumer.poll_next(&mut Context::from_waker(&waker)) {
                                    Poll::Ready(Some(_)) => taken += 1,
                                    Poll::Ready(None) => return taken,
                                    Poll::Pending => break,
                                }
                            }
                            thread::park();
                        }
                    })
                })
                .collect();
            let filling: Vec<_> = (0..2_u64)
                .map(|filler| {
                    let (inboxes, chain) = (&inboxes, &chain);
                    scope.spawn(move || {
                        for number in 0..EACH {
                            let inbox = (number + filler) as usize % inboxes.len();
                            let place = loop {
                                if let Ok(place) = inboxes[inbox].try_claim() {
                                    break place;
                                }
                                if began.elapsed() > Duration::from_secs(60) {
                                    inboxes.iter().for_each(Queue::close);
                                    panic!("one sleeps on");
                                }
                                thread::yield_now();
                            };
                            place.put(number);
                            chain.wake(inbox, inboxes);
                        }
                    })
                })
                .collect();
            filling.into_iter().for_each(|filler| filler.join().expect("it fills"));
            inboxes.iter().for_each(Queue::close);
            let taken: u64 = consuming.into_iter().map(|consumer| consumer.join().expect("it consumes")).sum();
            assert_eq!(taken, 2 * EACH);
        });
    }
}
