//! A map that many read while one writes: a clone shares everything, a write copies one shard.

use std::sync::Arc;

use hashbrown::HashTable;

/// A table has 2 to the power of twice this many shards at least.
const BITS_MIN: u32 = 2;

/// A persistent hash map.
///
/// The keys are spread over shards in rows: ∛n rows of ∛n shards of ∛n entries or fewer. A write copies ∛n references three times:
/// to the rows, to the shards of one and to the entries of one of those. A look-up is three steps, whatever the number of entries.
///
/// ```text
/// rows ─▶ [ Arc, Arc, Arc, … ]        low bits of the hash choose the row
///            │
///            ▼
///          [ Arc, Arc, Arc, … ]       the next bits the shard
///                  │
///                  ▼
///               HashTable of (hash, key, value)
/// ```
pub(crate) struct Shards<K, V> {
    rows: Arc<[Row<K, V>]>,
    len: usize,
    /// As many bits of a hash choose the row, and as many the shard.
    bits: u32,
}

type Row<K, V> = Arc<[Arc<Shard<K, V>>]>;

type Shard<K, V> = HashTable<Slot<K, V>>;

#[derive(Clone)]
struct Slot<K, V> {
    hash: u64,
    key: K,
    value: V,
}

impl<K, V> Clone for Shards<K, V> {
    fn clone(&self) -> Self {
        Self { rows: Arc::clone(&self.rows), len: self.len, bits: self.bits }
    }
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        Self::of([], 0, BITS_MIN)
    }
}

impl<K, V> Shards<K, V> {
    fn of(slots: impl IntoIterator<Item = Slot<K, V>>, len: usize, bits: u32) -> Self {
        let side = 1 << bits;
        let mut shards: Vec<Shard<K, V>> = Vec::new();
        shards.resize_with(side * side, Shard::new);
        for slot in slots {
            let (row, column) = place(slot.hash, bits);
            shards[row * side + column].insert_unique(spread(slot.hash), slot, |slot| spread(slot.hash));
        }
        let mut shards = shards.into_iter().map(Arc::new);
        Self { rows: (0..side).map(|_| shards.by_ref().take(side).collect()).collect(), len, bits }
    }
}

impl<K: Clone + AsRef<str>, V: Clone> Shards<K, V> {
    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The value of `key`, whose hash is `hash`.
    pub(crate) fn get(&self, hash: u64, key: &str) -> Option<&V> {
        let (row, column) = place(hash, self.bits);
        self.rows[row][column]
            .find(spread(hash), |slot| slot.hash == hash && slot.key.as_ref() == key)
            .map(|slot| &slot.value)
    }

    /// Sets the value of `key`.
    pub(crate) fn insert(&mut self, hash: u64, key: K, value: V) {
        if self.len >= 1 << (3 * self.bits) {
            let slots: Vec<_> = self.slots().cloned().collect();
            *self = Self::of(slots, self.len, self.bits + 1);
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
        self.slots().map(|slot| (&slot.key, &slot.value))
    }

    fn slots(&self) -> impl Iterator<Item = &Slot<K, V>> {
        self.rows.iter().flat_map(|row| row.iter()).flat_map(|shard| shard.iter())
    }

    fn shard_mut(&mut self, hash: u64) -> &mut Shard<K, V> {
        let (row, column) = place(hash, self.bits);
        let row = &mut Arc::make_mut(&mut self.rows)[row];
        Arc::make_mut(&mut Arc::make_mut(row)[column])
    }
}

/// The row of a hash and its place there.
fn place(hash: u64, bits: u32) -> (usize, usize) {
    let mask = (1 << bits) - 1;
    (hash as usize & mask, (hash >> bits) as usize & mask)
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
