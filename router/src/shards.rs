//! A map that many read while one writes: a clone shares everything, a write copies one shard.

use std::sync::Arc;

use hashbrown::HashTable;

const SHARDS_MIN: usize = 16;

/// A persistent hash map.
///
/// The keys are spread over a power of two of shards, about √n of them, so a write copies √n references twice: to the
/// shards and to the entries of one. A look-up is two steps, whatever the number of entries.
///
/// ```text
/// shards ─▶ [ Arc, Arc, Arc, … ]      low bits of the hash choose the shard
///              │
///              ▼
///           HashTable of (hash, key, value)
/// ```
pub(crate) struct Shards<K, V> {
    shards: Arc<[Arc<Shard<K, V>>]>,
    len: usize,
}

type Shard<K, V> = HashTable<Slot<K, V>>;

#[derive(Clone)]
struct Slot<K, V> {
    hash: u64,
    key: K,
    value: V,
}

impl<K, V> Clone for Shards<K, V> {
    fn clone(&self) -> Self {
        Self { shards: Arc::clone(&self.shards), len: self.len }
    }
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        Self { shards: (0..SHARDS_MIN).map(|_| Arc::default()).collect(), len: 0 }
    }
}

impl<K: Clone + AsRef<str>, V: Clone> Shards<K, V> {
    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The value of `key`, whose hash is `hash`.
    pub(crate) fn get(&self, hash: u64, key: &str) -> Option<&V> {
        self.shards[self.index(hash)]
            .find(spread(hash), |slot| slot.hash == hash && slot.key.as_ref() == key)
            .map(|slot| &slot.value)
    }

    /// Sets the value of `key`.
    pub(crate) fn insert(&mut self, hash: u64, key: K, value: V) {
        if self.len >= 4 * self.shards.len() * self.shards.len() {
            self.grow();
        }
        let shard = self.shard_mut(hash);
        match shard.find_mut(spread(hash), |slot| slot.hash == hash && slot.key.as_ref() == key.as_ref()) {
            Some(slot) => slot.value = value,
            None => {
                shard.insert_unique(spread(hash), Slot { hash, key, value }, |slot| spread(slot.hash));
                self.len += 1;
            }
        }
    }

    /// Removes `key`.
    pub(crate) fn remove(&mut self, hash: u64, key: &str) {
        let found = self
            .shard_mut(hash)
            .find_entry(spread(hash), |slot| slot.hash == hash && slot.key.as_ref() == key)
            .map(|entry| entry.remove());
        if found.is_ok() {
            self.len -= 1;
        }
    }

    /// All entries, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter().map(|slot| (&slot.key, &slot.value)))
    }

    fn index(&self, hash: u64) -> usize {
        hash as usize & (self.shards.len() - 1)
    }

    fn shard_mut(&mut self, hash: u64) -> &mut Shard<K, V> {
        let index = self.index(hash);
        Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[index])
    }

    fn grow(&mut self) {
        let mut shards: Vec<Shard<K, V>> = Vec::new();
        shards.resize_with(self.shards.len() * 2, Shard::new);
        let mask = shards.len() - 1;
        for slot in self.shards.iter().flat_map(|shard| shard.iter()) {
            shards[slot.hash as usize & mask].insert_unique(spread(slot.hash), slot.clone(), |slot| spread(slot.hash));
        }
        self.shards = shards.into_iter().map(Arc::new).collect();
    }
}

/// The low bits chose the shard, so the table inside gets the others.
fn spread(hash: u64) -> u64 {
    hash.rotate_right(32)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use edri_events::key_hash;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_behaves_as_a_map_and_old_clones_keep_their_contents(
            steps in prop::collection::vec((0_u16..3000, prop::option::of(any::<u8>())), 1..2000),
        ) {
            let mut shards = Shards::<String, u8>::default();
            let mut model = HashMap::new();
            let mut kept = None;
            for (number, (key, value)) in steps.into_iter().enumerate() {
                if number == 500 {
                    kept = Some((shards.clone(), model.clone()));
                }
                let key = key.to_string();
                match value {
                    Some(value) => {
                        shards.insert(key_hash(&key), key.clone(), value);
                        model.insert(key, value);
                    }
                    None => {
                        shards.remove(key_hash(&key), &key);
                        model.remove(&key);
                    }
                }
            }
            for (shards, model) in kept.into_iter().chain([(shards, model)]) {
                prop_assert_eq!(shards.len(), model.len());
                for (key, value) in &model {
                    prop_assert_eq!(shards.get(key_hash(key), key), Some(value));
                }
                let listed: HashMap<_, _> = shards.iter().map(|(key, value)| (key.clone(), *value)).collect();
                prop_assert_eq!(&listed, &model);
            }
        }
    }
}
