//! The events in a process's hands: sent, not answered yet.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use edri_protocol::Window;

/// Calls of one side, by their numbers, which grow by two.
#[derive(Debug)]
pub(super) struct Flights<T> {
    /// From the oldest open call on; an answered one in between is a hole.
    slots: VecDeque<Option<Flight<T>>>,
    /// The number of the first slot.
    first: u64,
    open: usize,
    bytes: u64,
    /// All calls up to this number have been begun.
    begun: u64,
    /// When a call was answered the last time.
    answered: Instant,
}

#[derive(Debug)]
struct Flight<T> {
    item: T,
    bytes: u64,
    begun: Option<Instant>,
}

impl<T> Flights<T> {
    /// No calls yet; the first will have the number `first`.
    pub(super) fn new(first: u64, now: Instant) -> Self {
        Self { slots: VecDeque::new(), first, open: 0, bytes: 0, begun: 0, answered: now }
    }

    pub(super) fn len(&self) -> usize {
        self.open
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Whether another call may be made.
    pub(super) fn has_room(&self, window: Window) -> bool {
        window.calls > 0 && (self.open == 0 || (self.open < window.calls as usize && self.bytes < window.bytes))
    }

    /// The number that the next call will have.
    pub(super) fn next_number(&self) -> u64 {
        self.first + 2 * self.slots.len() as u64
    }

    /// Adds a call whose payload has so many bytes.
    pub(super) fn add(&mut self, item: T, bytes: u64) {
        self.slots.push_back(Some(Flight { item, bytes, begun: None }));
        self.open += 1;
        self.bytes += bytes;
    }

    fn index(&self, number: u64) -> Option<usize> {
        let offset = number.checked_sub(self.first)?;
        (offset % 2 == 0).then_some((offset / 2) as usize)
    }

    /// Takes an answered call out.
    pub(super) fn take(&mut self, number: u64, now: Instant) -> Option<T> {
        let index = self.index(number)?;
        let flight = self.slots.get_mut(index)?.take()?;
        self.open -= 1;
        self.bytes -= flight.bytes;
        self.answered = now;
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 2;
        }
        Some(flight.item)
    }

    /// All open calls, oldest first.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        let first = self.first;
        let open = self.slots.iter_mut().enumerate();
        open.filter_map(move |(index, slot)| Some((first + 2 * index as u64, &mut slot.as_mut()?.item)))
    }

    /// Takes note that all calls up to `number` have been begun, and none behind it: who said more before takes it back.
    pub(super) fn begin(&mut self, number: u64, now: Instant) {
        // Nobody can begin what was not sent.
        let number = number.min(self.next_number().saturating_sub(2));
        let behind = |number: u64| number.checked_sub(self.first).map_or(0, |offset| (offset / 2 + 1) as usize);
        let (from, to) = (behind(self.begun), behind(number));
        let (changed, begun) = if from < to { (from..to, Some(now)) } else { (to..from.min(self.slots.len()), None) };
        for slot in self.slots.range_mut(changed).flatten() {
            slot.begun = begun;
        }
        self.begun = number;
    }

    /// How long the oldest begun call has been going on, as far as can be known: a worker that handles one at a time
    /// began it when it had answered the one before.
    pub(super) fn oldest(&self, sequential: bool, says_begun: bool, now: Instant) -> Option<(u64, Duration)> {
        let index = self.slots.iter().position(Option::is_some)?;
        let flight = self.slots[index].as_ref()?;
        let begun = match flight.begun {
            Some(begun) => begun,
            None if says_begun => return None,
            None => self.answered,
        };
        let since = if sequential { begun.max(self.answered) } else { begun };
        Some((self.first + 2 * index as u64, now.saturating_duration_since(since)))
    }

    /// Ends all: those that may have been begun, and those that have not, each oldest first. Without a word about it all
    /// may have been.
    pub(super) fn end(self, says_begun: bool) -> (Vec<T>, Vec<T>) {
        let (mut begun, mut waiting) = (Vec::new(), Vec::new());
        for (index, slot) in self.slots.into_iter().enumerate() {
            let number = self.first + 2 * index as u64;
            if let Some(flight) = slot {
                if !says_begun || number <= self.begun { begun.push(flight.item) } else { waiting.push(flight.item) }
            }
        }
        (begun, waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_found_by_number_whatever_the_order_of_answers() {
        let now = Instant::now();
        let mut flights = Flights::new(2, now);
        for item in 0..100_u64 {
            assert_eq!(flights.next_number(), 2 + 2 * item);
            flights.add(item, 10);
        }
        // 37 and 100 have no divisor in common, so this visits all.
        for step in 0..100_u64 {
            let item = step * 37 % 100;
            assert_eq!(flights.take(2 + 2 * item, now), Some(item));
            assert_eq!(flights.take(2 + 2 * item, now), None, "answered once");
        }
        assert!(flights.is_empty());
        assert_eq!((flights.bytes, flights.slots.len(), flights.next_number()), (0, 0, 202));
        for number in [0, 1, 3, 200, 202, u64::MAX] {
            assert_eq!(flights.take(number, now), None, "{number}");
        }
    }

    #[test]
    fn a_window_bounds_calls_and_bytes_but_lets_one_large_call_through() {
        let mut flights = Flights::new(2, Instant::now());
        let window = Window { calls: 3, bytes: 100 };
        assert!(flights.has_room(window));
        flights.add((), 1000);
        assert!(!flights.has_room(window));
        flights.take(2, Instant::now());
        for _ in 0..3 {
            assert!(flights.has_room(window));
            flights.add((), 10);
        }
        assert!(!flights.has_room(window));
    }

    #[test]
    fn what_was_begun_is_told_apart_from_what_was_not() {
        let now = Instant::now();
        let begin_at = |numbers: &[u64], answered: &[u64]| {
            let mut flights = Flights::new(2, now);
            (1..=5).for_each(|item| flights.add(item, 0));
            for number in numbers {
                flights.begin(*number, now);
            }
            for number in answered {
                flights.take(*number, now);
            }
            flights.end(true)
        };
        assert_eq!(begin_at(&[], &[]), (vec![], vec![1, 2, 3, 4, 5]));
        assert_eq!(begin_at(&[2], &[]), (vec![1], vec![2, 3, 4, 5]));
        assert_eq!(begin_at(&[2, 6], &[2, 4]), (vec![3], vec![4, 5]));
        assert_eq!(begin_at(&[8, 4], &[]), (vec![1, 2], vec![3, 4, 5]), "taken back");
        assert_eq!(begin_at(&[8, 4, 6], &[2]), (vec![2, 3], vec![4, 5]));
        assert_eq!(begin_at(&[99], &[4]), (vec![1, 3, 4, 5], vec![]));
    }

    #[test]
    fn a_sequential_worker_begins_the_next_when_it_has_answered_the_one_before() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut flights = Flights::new(2, begin);
        flights.add('a', 0);
        flights.add('b', 0);
        assert_eq!(flights.oldest(true, true, at(9)), None, "none is begun");
        flights.begin(4, at(1));
        assert_eq!(flights.oldest(true, true, at(3)), Some((2, Duration::from_secs(2))));
        flights.take(2, at(5));
        assert_eq!(flights.oldest(true, true, at(6)), Some((4, Duration::from_secs(1))));
        assert_eq!(
            flights.oldest(false, true, at(6)),
            Some((4, Duration::from_secs(5))),
            "it was begun beside the other"
        );
    }
}
