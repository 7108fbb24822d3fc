//! Times and sizes as texts: `2s`, `500ms`, `64MiB`.

use std::borrow::Cow;
use std::time::Duration;

use bytesize::ByteSize;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A time, longer than none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(Duration);

/// So many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(u64);

impl Span {
    pub(crate) const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let time = humantime::parse_duration(text)
            .map_err(|error| format!("`{text}` is no time ({error}): write it like `500ms`, `2s` or `1h 30m`"))?;
        if time.is_zero() {
            return Err("a time of zero would be over before it began: write how long, or leave it out".to_owned());
        }
        Ok(Self(time))
    }
}

impl Size {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let size: Result<ByteSize, _> = text.parse();
        size.map(|size| Self(size.as_u64())).map_err(|error| {
            format!("`{text}` is no size ({error}): write bytes as a number, or like `64KiB`, `2MiB` or `1GiB`")
        })
    }

    pub(crate) const fn bytes(self) -> u64 {
        self.0
    }
}

impl From<Duration> for Span {
    fn from(time: Duration) -> Self {
        Self(time)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

impl From<usize> for Size {
    fn from(bytes: usize) -> Self {
        Self(bytes as u64)
    }
}

impl From<Size> for usize {
    /// What no memory holds is as good as the most that one could.
    fn from(size: Size) -> Self {
        Self::try_from(size.0).unwrap_or(Self::MAX)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Span;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a time with its unit, like \"500ms\" or \"2s\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                Span::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Size;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a size, like 4096 or \"64MiB\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                Size::parse(text).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                u64::try_from(bytes).map(Size).map_err(|_| E::custom("a size is not negative"))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "integer"]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_numbers_with_units() {
        let time = |text: &str| Span::parse(text).map(Duration::from);
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("1h 30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "5", "s", "-5s", "0s", "5 parsecs", "99999999999999999999h"] {
            assert!(time(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(Size::parse("64MiB").map(Size::bytes), Ok(64 << 20));
        assert_eq!(Size::parse("4096").map(Size::bytes), Ok(4096));
        for wrong in ["", "MiB", "64 parsecs", "-1"] {
            assert!(Size::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
