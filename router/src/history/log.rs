//! What a history keeps: numbered entries within bounds. Pure; time comes in as an argument.

use std::collections::VecDeque;
use std::time::Instant;

use super::History;

/// An event and its number. Numbers go up by one with each event; those that are not kept leave holes.
#[derive(Debug, Clone)]
pub(super) struct Entry<T> {
    pub(super) number: u64,
    pub(super) at: Instant,
    pub(super) item: T,
    weight: usize,
}

#[derive(Debug)]
pub(super) struct Log<T> {
    /// Ordered by number.
    entries: VecDeque<Entry<T>>,
    next: u64,
    bytes: usize,
    bounds: History,
}

/// What a reader finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It has these entries, in the order of their numbers.
    Entries,
    /// So many that it was to have are not kept any more.
    Missed(u64),
    /// It has had everything.
    Nothing,
}

impl<T: Clone> Log<T> {
    pub(super) fn new(bounds: History) -> Self {
        Self { entries: VecDeque::new(), next: 1, bytes: 0, bounds }
    }

    /// The number of the next event.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The weight of all that is kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the oldest entry came.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.entries.front().map(|entry| entry.at)
    }

    /// Numbers an event and keeps it. One without a weight, or too heavy to be kept, is only numbered. What made room for it,
    /// or was too old, is put into `gone`.
    pub(super) fn push(&mut self, now: Instant, weight: Option<usize>, item: T, gone: &mut Vec<T>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.expire(now, gone);
        let Some(weight) = weight.filter(|weight| *weight <= self.bounds.bytes) else {
            gone.push(item);
            return number;
        };
        self.bytes += weight;
        self.entries.push_back(Entry { number, at: now, item, weight });
        while self.entries.len() > self.bounds.events || self.bytes > self.bounds.bytes {
            self.forget(gone);
        }
        number
    }

    /// Forgets what is too old.
    pub(super) fn expire(&mut self, now: Instant, gone: &mut Vec<T>) {
        while self.entries.front().is_some_and(|entry| self.bounds.is_too_old(entry.at, now)) {
            self.forget(gone);
        }
    }

    fn forget(&mut self, gone: &mut Vec<T>) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.bytes -= entry.weight;
        gone.push(entry.item);
    }

    /// Gives a reader whose next event has the number `*place` what there is, at most `most` entries of it, and moves its
    /// place behind that.
    pub(super) fn read(&self, place: &mut u64, most: usize, into: &mut VecDeque<Entry<T>>) -> Found {
        let first = self.entries.partition_point(|entry| entry.number < *place);
        let found = self.entries.get(first).map_or(self.next, |entry| entry.number);
        if found > *place {
            let missed = found - *place;
            *place = found;
            return Found::Missed(missed);
        }
        let before = *place;
        for entry in self.entries.range(first..).take(most) {
            if entry.number != *place {
                break;
            }
            into.push_back(entry.clone());
            *place += 1;
        }
        if *place == before { Found::Nothing } else { Found::Entries }
    }

    /// The entries below a number, newest first, at most `most`.
    pub(super) fn below(&self, number: u64, most: usize) -> Vec<Entry<T>> {
        let end = self.entries.partition_point(|entry| entry.number < number);
        self.entries.range(..end).rev().take(most).cloned().collect()
    }

    /// The first number from which on `count` entries below `number` are kept, or all of those when there are fewer.
    pub(super) fn back(&self, number: u64, count: usize) -> u64 {
        let end = self.entries.partition_point(|entry| entry.number < number);
        let first = end.saturating_sub(count);
        self.entries.range(first..end).next().map_or(number, |entry| entry.number)
    }

    /// Looks for the first entry that `is_it` picks among `most` from this number on.
    pub(super) fn find(&self, from: u64, most: usize, is_it: impl Fn(&T) -> bool) -> Search {
        let first = self.entries.partition_point(|entry| entry.number < from);
        let mut next = None;
        for entry in self.entries.range(first..).take(most) {
            if is_it(&entry.item) {
                return Search::At(entry.number);
            }
            next = Some(entry.number + 1);
        }
        next.map_or(Search::Nowhere, Search::GoOn)
    }
}

/// How far a search came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Search {
    At(u64),
    /// It is not among those before this number.
    GoOn(u64),
    Nowhere,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        /// An event of this weight, or of none.
        Push(Option<usize>),
        Wait(u64),
        /// Expire, then read so many at most.
        Read(usize),
        Last(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1_usize..40).prop_map(|weight| Step::Push(Some(weight))),
            1 => Just(Step::Push(None)),
            1 => (0_u64..30).prop_map(Step::Wait),
            2 => (1_usize..6).prop_map(Step::Read),
            1 => (0_usize..6).prop_map(Step::Last),
        ]
    }

    /// Every event there ever was, with its number, weight and time.
    struct Naive {
        all: Vec<(u64, Option<usize>, Instant)>,
        bounds: History,
    }

    impl Naive {
        /// What is kept: of those that could be kept at all, the longest end within the bounds.
        fn kept(&self, now: Instant) -> Vec<u64> {
            let able = self.all.iter().filter_map(|(number, weight, at)| {
                let weight = weight.filter(|weight| *weight <= self.bounds.bytes)?;
                Some((*number, weight, *at))
            });
            let (mut kept, mut bytes) = (Vec::new(), 0);
            for (number, weight, at) in able.rev() {
                bytes += weight;
                let old = self.bounds.age.is_some_and(|age| now - at > age);
                if bytes > self.bounds.bytes || kept.len() == self.bounds.events || old {
                    break;
                }
                kept.insert(0, number);
            }
            kept
        }
    }

    proptest! {
        #[test]
        fn a_log_keeps_the_longest_end_within_its_bounds_and_a_reader_is_told_of_every_other_event(
            steps in prop::collection::vec(step(), 0..80),
            events in 1_usize..6,
            bytes in 1_usize..100,
            age in prop::option::of(0_u64..60),
        ) {
            let mut bounds = History::new().events(events).bytes(bytes);
            if let Some(age) = age {
                bounds = bounds.age(Duration::from_millis(age));
            }
            let mut now = Instant::now();
            let mut log = Log::new(bounds.clone());
            let mut naive = Naive { all: Vec::new(), bounds };
            // A reader from the beginning: what it had and what it was told of are all numbers, each once.
            let mut place = 1;
            for step in steps {
                let mut gone = Vec::new();
                match step {
                    Step::Push(weight) => {
                        let number = naive.all.len() as u64 + 1;
                        naive.all.push((number, weight, now));
                        prop_assert_eq!(log.push(now, weight, number, &mut gone), number);
                    }
                    Step::Wait(ms) => now += Duration::from_millis(ms),
                    Step::Read(most) => {
                        log.expire(now, &mut gone);
                        let kept = naive.kept(now);
                        prop_assert_eq!(log.len(), kept.len());
                        let (before, mut into) = (place, VecDeque::new());
                        let next = naive.all.len() as u64 + 1;
                        let expect = match kept.iter().find(|number| **number >= before) {
                            Some(first) if *first > before => Found::Missed(first - before),
                            Some(_) => Found::Entries,
                            None if before < next => Found::Missed(next - before),
                            None => Found::Nothing,
                        };
                        let found = log.read(&mut place, most, &mut into);
                        let had: Vec<_> = into.iter().map(|entry| entry.item).collect();
                        match &found {
                            Found::Missed(missed) => prop_assert_eq!(before + missed, place),
                            _ => {
                                prop_assert_eq!(place, before + had.len() as u64);
                                prop_assert!(had.len() <= most);
                                prop_assert_eq!(&had, &(before..place).collect::<Vec<_>>());
                                prop_assert!(had.iter().all(|number| kept.contains(number)));
                            }
                        }
                        prop_assert_eq!(found, expect);
                    }
                    Step::Last(count) => {
                        log.expire(now, &mut gone);
                        let kept = naive.kept(now);
                        let first = kept[kept.len().saturating_sub(count)..].first().copied();
                        prop_assert_eq!(log.back(log.next(), count), first.unwrap_or(naive.all.len() as u64 + 1));
                        let below: Vec<_> = log.below(log.next(), count).into_iter().map(|entry| entry.number).collect();
                        prop_assert_eq!(below, kept.iter().rev().take(count).copied().collect::<Vec<_>>());
                        for number in 0..=log.next() {
                            let mut from = 0;
                            let found = loop {
                                match log.find(from, count.max(1), |item| *item == number) {
                                    Search::At(at) => break Some(at),
                                    Search::GoOn(on) => from = on,
                                    Search::Nowhere => break None,
                                }
                            };
                            prop_assert_eq!(found, kept.contains(&number).then_some(number));
                        }
                    }
                }
                let weights: usize =
                    log.below(log.next(), usize::MAX).iter().filter_map(|entry| naive.all[entry.number as usize - 1].1).sum();
                prop_assert_eq!(log.bytes(), weights);
                prop_assert!(log.bytes() <= bytes && log.len() <= events);
            }
        }
    }
}
