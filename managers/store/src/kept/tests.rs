//! What readers see of a durable namespace is what is on disk, whatever is on its way there.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::model::If;
use crate::raw;

#[derive(Debug, Clone)]
enum Step {
    Set(u8, i64),
    Delete(u8),
    /// So many of what waits reach the disk.
    Keep(usize),
    /// The disk fails.
    Fail,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..6_u8, 0..100_i64).prop_map(|(key, value)| Step::Set(key, value)),
        2 => (0..6_u8).prop_map(Step::Delete),
        3 => (1..4_usize).prop_map(Step::Keep),
        1 => Just(Step::Fail),
    ]
}

fn key(number: u8) -> Arc<str> {
    format!("k{number}").into()
}

proptest! {
    #[test]
    fn readers_and_watchers_see_what_is_on_disk(steps in proptest::collection::vec(step(), 1..80), from in 0..40_usize) {
        let mut kept = Kept::new(Bounds::default());
        let mut disk: BTreeMap<Arc<str>, Bytes> = BTreeMap::new();
        let mut waiting: VecDeque<Effects> = VecDeque::new();
        let mut watcher = None;
        let mut watched: BTreeMap<Arc<str>, Bytes> = BTreeMap::new();
        for (index, step) in steps.into_iter().enumerate() {
            if index == from {
                watcher = kept.watch("k").map(|(number, _)| number);
            }
            let command = match step {
                Step::Set(number, value) => {
                    Command::Set { key: key(number), value: raw::integer(value), expires_in: None, only: If::Always }
                }
                Step::Delete(number) => Command::Delete { key: key(number), only: If::Always },
                Step::Keep(count) => {
                    for effects in waiting.drain(..count.min(waiting.len())) {
                        for change in &effects.changes {
                            match &change.after {
                                Some(entry) => disk.insert(Arc::clone(&change.key), entry.value.clone()),
                                None => disk.remove(&change.key),
                            };
                        }
                        kept.release(&effects.changes);
                    }
                    continue;
                }
                Step::Fail => {
                    kept.take_back(waiting.drain(..).collect());
                    continue;
                }
            };
            let (_, effects) = kept.apply(1, None, &command);
            kept.hold(&effects.changes);
            waiting.push_back(effects);
            let seen: BTreeMap<_, _> = kept.page(1, "", None, 100).items.into_iter().map(|(key, e)| (key, e.value)).collect();
            prop_assert_eq!(&seen, &disk);
            prop_assert_eq!(kept.count(1, ""), disk.len() as u64);
            for number in 0..6 {
                prop_assert_eq!(kept.get(1, &key(number)).map(|e| e.value.clone()), disk.get(&key(number)).cloned());
            }
            if let Some(number) = watcher {
                let mut ready = false;
                while !ready {
                    let news = kept.news(1, number).expect("goes on");
                    ready = news.is_empty();
                    for news in news.into_iter().filter(|news| news.what != What::Ready) {
                        match news.entry {
                            Some(entry) => watched.insert(news.key, entry.value),
                            None => watched.remove(&news.key),
                        };
                    }
                }
                prop_assert_eq!(&watched, &disk);
            }
        }
    }
}
