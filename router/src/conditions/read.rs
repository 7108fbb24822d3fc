//! Reads the fields of a payload that conditions ask for, and no others.

use std::fmt;

use edri_events::{CodecError, Encoding};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Field;
use super::number::Number;
use super::value::Found;
use crate::limits::CONDITIONS_MAX;

/// A bit for each test.
type Bits = u64;

const _: () = assert!(CONDITIONS_MAX <= Bits::BITS as usize);

/// The fields that are asked for, as they lie in each other.
#[derive(Clone)]
pub(super) struct Tree {
    /// Ordered by name.
    children: Vec<(Box<str>, Tree)>,
    /// The field's place in the list of fields, and the bit of its first test.
    field: Option<(usize, u32)>,
    /// The tests of this field and of those within it.
    below: Bits,
    /// Those of them that hold when the field is not there.
    absent: Bits,
}

impl Tree {
    pub(super) fn new(fields: &[Field]) -> Self {
        let mut root = Self::empty();
        let mut bit = 0;
        for (index, field) in fields.iter().enumerate() {
            let (mut below, mut absent) = (0, 0);
            for (test, at) in field.tests.iter().zip(bit..) {
                below |= 1 << at;
                absent |= Bits::from(test.holds(Found::Null)) << at;
            }
            let mut tree = &mut root;
            tree.add(below, absent);
            for name in field.path.split('.') {
                let at = match tree.children.binary_search_by(|(child, _)| (**child).cmp(name)) {
                    Ok(at) => at,
                    Err(at) => {
                        tree.children.insert(at, (name.into(), Self::empty()));
                        at
                    }
                };
                tree = &mut tree.children[at].1;
                tree.add(below, absent);
            }
            tree.field = Some((index, bit));
            bit += field.tests.len() as u32;
        }
        root
    }

    fn empty() -> Self {
        Self { children: Vec::new(), field: None, below: 0, absent: 0 }
    }

    fn add(&mut self, below: Bits, absent: Bits) {
        self.below |= below;
        self.absent |= absent;
    }

    fn child(&self, name: &str) -> Option<&Self> {
        let at = self.children.binary_search_by(|(child, _)| (**child).cmp(name)).ok()?;
        Some(&self.children[at].1)
    }

    /// Whether every test of `fields`, which the tree was made of, holds for the payload of these bytes.
    pub(super) fn read(&self, encoding: Encoding, bytes: &[u8], fields: &[Field]) -> Result<bool, CodecError> {
        let mut held = 0;
        encoding.read(bytes, Reader { tree: self, fields, held: &mut held }, "the fields that conditions ask for")?;
        Ok(held == self.below)
    }
}

/// Reads one value.
struct Reader<'a> {
    tree: &'a Tree,
    fields: &'a [Field],
    held: &'a mut Bits,
}

impl Reader<'_> {
    /// Notes what the field is. A field that was there before, with all that was in it, is forgotten.
    fn found(&mut self, found: Found<'_>) {
        *self.held = *self.held & !self.tree.below | self.tree.absent;
        let Some((index, first)) = self.tree.field else { return };
        for (test, bit) in self.fields[index].tests.iter().zip(first..) {
            *self.held = *self.held & !(1 << bit) | Bits::from(test.holds(found)) << bit;
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(mut self) -> Result<(), E> {
        self.found(Found::Null);
        Ok(())
    }

    fn visit_bool<E>(mut self, value: bool) -> Result<(), E> {
        self.found(Found::Bool(value));
        Ok(())
    }

    fn visit_i64<E>(mut self, number: i64) -> Result<(), E> {
        self.found(Found::Number(Number::Integer(number.into())));
        Ok(())
    }

    fn visit_u64<E>(mut self, number: u64) -> Result<(), E> {
        self.found(Found::Number(Number::Integer(number.into())));
        Ok(())
    }

    fn visit_f32<E>(mut self, number: f32) -> Result<(), E> {
        if self.tree.field.is_some() {
            self.found(Found::Number(Number::short(number)));
        } else {
            self.found(Found::Other);
        }
        Ok(())
    }

    fn visit_f64<E>(mut self, number: f64) -> Result<(), E> {
        self.found(Found::Number(Number::Float(number)));
        Ok(())
    }

    fn visit_str<E>(mut self, text: &str) -> Result<(), E> {
        self.found(Found::Text(text));
        Ok(())
    }

    fn visit_bytes<E>(mut self, _: &[u8]) -> Result<(), E> {
        self.found(Found::Other);
        Ok(())
    }

    /// An extension type of MessagePack.
    fn visit_newtype_struct<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        self.found(Found::Other);
        deserializer.deserialize_ignored_any(IgnoredAny).map(|_| ())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.found(Found::Other);
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.found(Found::Other);
        while let Some(child) = map.next_key_seed(Name(self.tree))? {
            match child {
                Some(tree) => map.next_value_seed(Reader { tree, fields: self.fields, held: &mut *self.held })?,
                None => map.next_value::<IgnoredAny>().map(|_| ())?,
            }
        }
        Ok(())
    }
}

/// Reads the name of a field: what is asked for below it, if anything is.
struct Name<'a>(&'a Tree);

impl<'de, 'a> DeserializeSeed<'de> for Name<'a> {
    type Value = Option<&'a Tree>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'_> for Name<'a> {
    type Value = Option<&'a Tree>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.child(name))
    }

    // MessagePack allows other keys than texts; nobody asks for those.

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Self::Value, E> {
        Ok(None)
    }
}
