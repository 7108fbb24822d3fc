//! What happens to bytes that should not.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// Something that goes wrong on the way of a frame, or that somebody does on purpose.
#[derive(Debug, Clone)]
pub(crate) enum Damage {
    Flip(Index, u8),
    Replace(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize),
    Cut(Index),
}

pub(crate) fn damage() -> impl Strategy<Value = Damage> {
    // Bytes that begin something in MessagePack, or stand for structure in JSON.
    let telling = prop_oneof![
        any::<u8>(),
        0xc0_u8..=0xdf,
        proptest::sample::select(&b"{}[]\":,\\0-\x80\x81\x90\x91\xa0\xa1\xff"[..]),
    ];
    prop_oneof![
        (any::<Index>(), 0_u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (any::<Index>(), telling.clone()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        (any::<Index>(), vec(telling, 1..6)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (any::<Index>(), 1_usize..9).prop_map(|(at, count)| Damage::Remove(at, count)),
        (any::<Index>(), 1_usize..40).prop_map(|(at, count)| Damage::Repeat(at, count)),
        any::<Index>().prop_map(Damage::Cut),
    ]
}

impl Damage {
    pub(crate) fn strike(self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        if length == 0 {
            return;
        }
        match self {
            Self::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
            Self::Replace(at, byte) => bytes[at.index(length)] = byte,
            Self::Insert(at, more) => {
                let at = at.index(length);
                bytes.splice(at..at, more);
            }
            Self::Remove(at, count) => {
                let at = at.index(length);
                bytes.drain(at..(at + count).min(length));
            }
            Self::Repeat(at, count) => {
                let at = at.index(length);
                let more = bytes[at..(at + count).min(length)].repeat(3);
                bytes.splice(at..at, more);
            }
            Self::Cut(at) => bytes.truncate(at.index(length)),
        }
    }
}
