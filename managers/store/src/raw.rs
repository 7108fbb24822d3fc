//! MessagePack as it is: where a value ends, what a map has, and a few values to read and write. Values stay the bytes that
//! came.

use bytes::Bytes;
use rmp::Marker;

use crate::limits::VALUE_NESTING_MAX;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("it ends in the middle of a value")]
    Short,
    #[error("it has a marker that MessagePack does not have")]
    Marker,
    #[error("a value nests deeper than {VALUE_NESTING_MAX}")]
    Deep,
    #[error("it is no map with text for keys")]
    NoMap,
    #[error("it is no list")]
    NoList,
    #[error("there are bytes after the value")]
    Longer,
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = bytes.split_at_checked(count).ok_or(Malformed::Short)?;
    *bytes = rest;
    Ok(taken)
}

/// A length of so many bytes.
fn length(bytes: &mut &[u8], width: usize) -> Result<usize, Malformed> {
    let digits = take(bytes, width)?;
    Ok(digits.iter().fold(0, |number, digit| number << 8 | usize::from(*digit)))
}

/// What a marker says of what follows.
enum Follows {
    Bytes(usize),
    Values(usize),
}

fn head(bytes: &mut &[u8]) -> Result<(Marker, Follows), Malformed> {
    let marker = Marker::from_u8(take(bytes, 1)?[0]);
    let follows = match marker {
        Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => Follows::Bytes(0),
        Marker::U8 | Marker::I8 => Follows::Bytes(1),
        Marker::U16 | Marker::I16 | Marker::FixExt1 => Follows::Bytes(2),
        Marker::FixExt2 => Follows::Bytes(3),
        Marker::U32 | Marker::I32 | Marker::F32 => Follows::Bytes(4),
        Marker::FixExt4 => Follows::Bytes(5),
        Marker::U64 | Marker::I64 | Marker::F64 => Follows::Bytes(8),
        Marker::FixExt8 => Follows::Bytes(9),
        Marker::FixExt16 => Follows::Bytes(17),
        Marker::FixStr(count) => Follows::Bytes(usize::from(count)),
        Marker::Str8 | Marker::Bin8 => Follows::Bytes(length(bytes, 1)?),
        Marker::Str16 | Marker::Bin16 => Follows::Bytes(length(bytes, 2)?),
        Marker::Str32 | Marker::Bin32 => Follows::Bytes(length(bytes, 4)?),
        Marker::Ext8 => Follows::Bytes(length(bytes, 1)? + 1),
        Marker::Ext16 => Follows::Bytes(length(bytes, 2)? + 1),
        Marker::Ext32 => Follows::Bytes(length(bytes, 4)? + 1),
        Marker::FixArray(count) => Follows::Values(usize::from(count)),
        Marker::Array16 => Follows::Values(length(bytes, 2)?),
        Marker::Array32 => Follows::Values(length(bytes, 4)?),
        Marker::FixMap(count) => Follows::Values(2 * usize::from(count)),
        Marker::Map16 => Follows::Values(2 * length(bytes, 2)?),
        Marker::Map32 => Follows::Values(2 * length(bytes, 4)?),
        Marker::Reserved => return Err(Malformed::Marker),
    };
    Ok((marker, follows))
}

/// Takes one value off the front.
pub(crate) fn value<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let whole = *bytes;
    skip(bytes, 0)?;
    Ok(&whole[..whole.len() - bytes.len()])
}

fn skip(bytes: &mut &[u8], depth: usize) -> Result<(), Malformed> {
    if depth > VALUE_NESTING_MAX {
        return Err(Malformed::Deep);
    }
    match head(bytes)?.1 {
        Follows::Bytes(count) => {
            take(bytes, count)?;
        }
        Follows::Values(count) => {
            for _ in 0..count {
                skip(bytes, depth + 1)?;
            }
        }
    }
    Ok(())
}

/// The fields of a map that is all of `bytes`, each with the bytes of its value.
pub(crate) fn fields(mut bytes: &[u8]) -> Result<Vec<(&str, &[u8])>, Malformed> {
    let bytes = &mut bytes;
    let (marker, follows) = head(bytes)?;
    let (Marker::FixMap(_) | Marker::Map16 | Marker::Map32, Follows::Values(count)) = (marker, follows) else {
        return Err(Malformed::NoMap);
    };
    // Not more than there can be, whatever is said.
    let mut fields = Vec::with_capacity((count / 2).min(16));
    for _ in 0..count / 2 {
        let name = text(value(bytes)?).ok_or(Malformed::NoMap)?;
        fields.push((name, value(bytes)?));
    }
    if bytes.is_empty() { Ok(fields) } else { Err(Malformed::Longer) }
}

/// The elements of a list that is all of `bytes`.
pub(crate) fn elements(mut bytes: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    let bytes = &mut bytes;
    let (marker, follows) = head(bytes)?;
    let (Marker::FixArray(_) | Marker::Array16 | Marker::Array32, Follows::Values(count)) = (marker, follows) else {
        return Err(Malformed::NoList);
    };
    let mut elements = Vec::with_capacity(count.min(16));
    for _ in 0..count {
        elements.push(value(bytes)?);
    }
    if bytes.is_empty() { Ok(elements) } else { Err(Malformed::Longer) }
}

/// The text that a value is.
pub(crate) fn text(mut bytes: &[u8]) -> Option<&str> {
    let (marker, Follows::Bytes(count)) = head(&mut bytes).ok()? else { return None };
    let is_text = matches!(marker, Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32);
    let text = is_text.then(|| bytes.get(..count)).flatten()?;
    std::str::from_utf8(text).ok()
}

/// The truth that a value is.
pub(crate) fn truth(bytes: &[u8]) -> Option<bool> {
    match Marker::from_u8(*bytes.first()?) {
        Marker::True => Some(true),
        Marker::False => Some(false),
        _ => None,
    }
}

/// Whether a value is nothing.
pub(crate) fn is_null(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|byte| Marker::from_u8(*byte) == Marker::Null)
}

/// The number that a value is, or what it is instead.
pub(crate) fn read_integer(mut bytes: &[u8]) -> Result<i64, &'static str> {
    let what = name(bytes);
    let number = rmp::decode::read_int(&mut bytes).map_err(|_| what)?;
    if bytes.is_empty() { Ok(number) } else { Err(what) }
}

/// The number from 0 that a value is, or what it is instead.
pub(crate) fn read_count(mut bytes: &[u8]) -> Result<u64, &'static str> {
    let what = name(bytes);
    let number = rmp::decode::read_int(&mut bytes).map_err(|_| what)?;
    if bytes.is_empty() { Ok(number) } else { Err(what) }
}

/// A number as a value.
pub(crate) fn integer(number: i64) -> Bytes {
    let mut out = Writer::default();
    out.integer(number);
    out.0.into()
}

/// A list without elements.
pub(crate) fn empty_list() -> Bytes {
    Bytes::from_static(&[0x90])
}

/// The list with one element more, and how many it has then; or what it is instead of a list.
pub(crate) fn append(list: &[u8], element: &[u8]) -> Result<(Bytes, u64), &'static str> {
    let what = name(list);
    let mut rest = list;
    let (marker, Follows::Values(count)) = head(&mut rest).map_err(|_| what)? else { return Err(what) };
    if !matches!(marker, Marker::FixArray(_) | Marker::Array16 | Marker::Array32) {
        return Err(what);
    }
    let mut out = Writer(Vec::with_capacity(list.len() + element.len() + 4));
    out.list(count + 1);
    out.raw(rest);
    out.raw(element);
    Ok((out.0.into(), count as u64 + 1))
}

/// What a value is, for people.
fn name(bytes: &[u8]) -> &'static str {
    match bytes.first().map(|byte| Marker::from_u8(*byte)) {
        None | Some(Marker::Reserved) => "nothing readable",
        Some(Marker::Null) => "null",
        Some(Marker::True | Marker::False) => "a boolean",
        Some(Marker::F32 | Marker::F64) => "a floating-point number",
        Some(Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32) => "a text",
        Some(Marker::Bin8 | Marker::Bin16 | Marker::Bin32) => "bytes",
        Some(Marker::FixArray(_) | Marker::Array16 | Marker::Array32) => "a list",
        Some(Marker::FixMap(_) | Marker::Map16 | Marker::Map32) => "a map",
        Some(Marker::FixPos(_) | Marker::FixNeg(_) | Marker::U8 | Marker::U16 | Marker::U32) => "an integer",
        Some(Marker::U64 | Marker::I8 | Marker::I16 | Marker::I32 | Marker::I64) => "an integer",
        Some(_) => "an extension value",
    }
}

/// Writes MessagePack. Memory takes everything, so the results of writing say nothing.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    /// With room for so many bytes.
    pub(crate) fn with_room(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn map(&mut self, fields: usize) {
        let _ = rmp::encode::write_map_len(&mut self.0, u32::try_from(fields).unwrap_or(u32::MAX));
    }

    pub(crate) fn list(&mut self, elements: usize) {
        let _ = rmp::encode::write_array_len(&mut self.0, u32::try_from(elements).unwrap_or(u32::MAX));
    }

    pub(crate) fn text(&mut self, text: &str) {
        let _ = rmp::encode::write_str(&mut self.0, text);
    }

    pub(crate) fn count(&mut self, number: u64) {
        let _ = rmp::encode::write_uint(&mut self.0, number);
    }

    pub(crate) fn integer(&mut self, number: i64) {
        let _ = rmp::encode::write_sint(&mut self.0, number);
    }

    pub(crate) fn truth(&mut self, truth: bool) {
        let _ = rmp::encode::write_bool(&mut self.0, truth);
    }

    pub(crate) fn null(&mut self) {
        let _ = rmp::encode::write_nil(&mut self.0);
    }

    /// A value that is written already.
    pub(crate) fn raw(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use edri_events::Encoding;
    use proptest::prelude::*;

    use super::*;

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Into::into),
            ".{0,300}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 64, 20, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..20).prop_map(Into::into),
                proptest::collection::btree_map(".{0,8}", inner, 0..20)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_value_ends_where_it_ends(value in json(), more in proptest::collection::vec(any::<u8>(), 0..4)) {
            let bytes = Encoding::MessagePack.encode(&value).expect("encodes");
            let both = [&bytes[..], &more].concat();
            let mut rest = &both[..];
            prop_assert_eq!(super::value(&mut rest), Ok(&bytes[..]));
            prop_assert_eq!(rest, &more[..]);
            for short in 0..bytes.len() {
                prop_assert!(super::value(&mut &bytes[..short]).is_err());
            }
        }

        #[test]
        fn arbitrary_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = (fields(&bytes), elements(&bytes), text(&bytes), read_integer(&bytes), append(&bytes, &[0xc0]));
            let _ = (read_count(&bytes), truth(&bytes), is_null(&bytes), super::value(&mut &bytes[..]));
        }

        #[test]
        fn integers_come_back(number in any::<i64>()) {
            prop_assert_eq!(read_integer(&integer(number)), Ok(number));
        }
    }

    #[test]
    fn a_list_grows_by_what_is_appended() {
        for length in [0, 1, 14, 15, 16, 65_534, 65_535, 65_536] {
            let list = Encoding::MessagePack.encode(&vec![7; length]).expect("encodes");
            let (longer, now) = append(&list, &integer(-8)).expect("a list");
            let mut expect = vec![7; length];
            expect.push(-8);
            assert_eq!(Encoding::MessagePack.decode::<Vec<i64>>(&longer).expect("decodes"), expect);
            assert_eq!(now, length as u64 + 1);
        }
        assert_eq!(append(&empty_list(), &integer(2)).expect("a list").1, 1);
        assert_eq!(append(&integer(1), &integer(2)), Err("an integer"));
    }

    #[test]
    fn what_nests_too_deep_is_refused() {
        let deep = [0x91; VALUE_NESTING_MAX + 2];
        assert_eq!(super::value(&mut &deep[..]), Err(Malformed::Deep));
    }
}
