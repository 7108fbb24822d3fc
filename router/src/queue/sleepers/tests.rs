use std::sync::atomic::AtomicU64;

use proptest::prelude::*;

use super::*;

#[derive(Default)]
struct Count(AtomicU64);

impl std::task::Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

proptest! {
    /// Who sleeps is a stack out of which anybody may leave, and a number that has left finds nothing. Who is visited is alone, and awake
    /// to all others until it sleeps on, or is woken by whoever comes to the list.
    #[test]
    fn sleepers_are_woken_the_latest_first_whoever_leaves_or_is_visited_meanwhile(
        steps in prop::collection::vec((0..7_u8, 0..6_usize), 1..200),
    ) {
        let sleepers = Sleepers::default();
        let counts: Vec<Arc<Count>> = (0..6).map(|_| Arc::default()).collect();
        let mut numbers: [Option<u64>; 6] = [None; 6];
        let (mut model, mut visited, mut woken) = (Vec::new(), false, [0_u64; 6]);
        for (step, who) in steps {
            match step {
                0 | 1 => {
                    let number = sleepers.enlist(numbers[who], &Waker::from(Arc::clone(&counts[who])), None);
                    if !model.contains(&who) {
                        prop_assert_ne!(Some(number), numbers[who]);
                        if visited && let Some(other) = model.pop() {
                            woken[other] += 1;
                        }
                        model.push(who);
                    }
                    (numbers[who], visited) = (Some(number), false);
                }
                2 => {
                    if let Some(number) = numbers[who].take() {
                        sleepers.delist(number);
                        visited &= !model.contains(&who);
                        model.retain(|other| *other != who);
                    }
                }
                3 | 4 => {
                    prop_assert_eq!(sleepers.visit(), model.len() == 1 && !visited);
                    visited |= model.len() == 1;
                }
                5 => {
                    if let Some(number) = numbers[who] {
                        let is_visited = visited && model == [who];
                        prop_assert_eq!(sleepers.is_visited(number), is_visited);
                        prop_assert_eq!(sleepers.sleep_on(number), is_visited);
                        visited &= !is_visited;
                    }
                }
                _ => {
                    sleepers.wake_one();
                    visited = false;
                    if let Some(last) = model.pop() {
                        woken[last] += 1;
                    }
                }
            }
            let asleep = if visited { 0 } else { model.len() as isize };
            prop_assert_eq!(sleepers.is_any(), asleep > 0);
            for consumers in 0..7 {
                prop_assert_eq!(sleepers.is_all(consumers), asleep > 0 && asleep >= consumers);
            }
            let counted: Vec<u64> = counts.iter().map(|count| count.0.load(Ordering::Relaxed)).collect();
            prop_assert_eq!(&counted[..], &woken[..]);
        }
    }
}
