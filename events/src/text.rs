//! Values that are written as short texts, without an allocation: every event that crosses a boundary has some.

use std::fmt::{self, Display, Write};
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

/// Writes `value` as its text, which has `BYTES` bytes; one of another length is written too.
pub(crate) fn serialize<const BYTES: usize, S: Serializer>(
    value: &impl Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    struct Fixed<const BYTES: usize> {
        bytes: [u8; BYTES],
        length: usize,
    }

    impl<const BYTES: usize> Write for Fixed<BYTES> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let end = self.length + text.len();
            self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
            self.length = end;
            Ok(())
        }
    }

    let mut text = Fixed { bytes: [0; BYTES], length: 0 };
    match (write!(text, "{value}"), std::str::from_utf8(&text.bytes[..text.length])) {
        (Ok(()), Ok(text)) => serializer.serialize_str(text),
        _ => serializer.collect_str(value),
    }
}

/// Reads a `T` from its text; `what` says what that is.
pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
    deserializer: D,
    what: &'static str,
) -> Result<T, D::Error> {
    struct Parse<T>(&'static str, PhantomData<T>);

    impl<T: FromStr<Err: Display>> Visitor<'_> for Parse<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Parse(what, PhantomData))
}
