//! The form of conditions in frames and queries, read with its limits and written again.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::number::Number;
use super::value::{Test, Value};
use super::{Conditions, Field};
use crate::limits::{CONDITION_BYTES_MAX, CONDITION_DEPTH_MAX, CONDITION_VALUES_MAX, CONDITIONS_MAX};

/// In the order in which a field's tests are kept.
const OPERATORS: [&str; 8] = ["eq", "ne", "in", "gt", "gte", "lt", "lte", "prefix"];
const FORM: &str = "write them as {\"field\": {\"gte\": 5}, \"other.field\": {\"in\": [\"a\", \"b\"]}}";
const VALUE: &str = "a text, a number, true, false or null";

impl<'de> Deserialize<'de> for Conditions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(All)
    }
}

/// What was read so far.
#[derive(Default)]
struct Count {
    tests: usize,
    values: usize,
    bytes: usize,
}

impl Count {
    fn add_bytes<E: Error>(&mut self, bytes: usize) -> Result<(), E> {
        self.bytes += bytes;
        if self.bytes > CONDITION_BYTES_MAX {
            return Err(E::custom(format_args!(
                "conditions: their names and texts are longer than {CONDITION_BYTES_MAX} bytes together; compare with \
                 shorter texts, or fewer of them"
            )));
        }
        Ok(())
    }

    fn add_test<E: Error>(&mut self) -> Result<(), E> {
        self.tests += 1;
        if self.tests > CONDITIONS_MAX {
            return Err(E::custom(format_args!(
                "conditions: more than {CONDITIONS_MAX}; say fewer, and look at the rest where the events arrive"
            )));
        }
        Ok(())
    }

    fn add_value<E: Error>(&mut self, path: &str) -> Result<(), E> {
        self.values += 1;
        if self.values > CONDITION_VALUES_MAX {
            return Err(E::custom(format_args!(
                "conditions: field `{path}`: more than {CONDITION_VALUES_MAX} values to compare with in all; subscribe \
                 several times with shorter lists"
            )));
        }
        Ok(())
    }
}

/// A value that may be repeated in an error's text.
fn short(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(64) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

struct All;

impl<'de> Visitor<'de> for All {
    type Value = Conditions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conditions: {FORM}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Conditions, A::Error> {
        let mut count = Count::default();
        let mut fields: Vec<Field> = Vec::new();
        while let Some(path) = map.next_key::<Cow<'de, str>>()? {
            let path: Box<str> = path.into();
            count.add_bytes(path.len())?;
            check_path(&path)?;
            if fields.iter().any(|field| field.path == path) {
                return Err(A::Error::custom(format_args!(
                    "conditions: field `{}` is there twice; put all that is said of it into one map",
                    short(&path)
                )));
            }
            let tests = map.next_value_seed(Tests { path: &path, count: &mut count })?;
            fields.push(Field { path, tests });
        }
        Ok(Conditions::new(fields))
    }
}

fn check_path<E: Error>(path: &str) -> Result<(), E> {
    if path.split('.').any(str::is_empty) {
        return Err(E::custom(format_args!(
            "conditions: `{}` names no field; write the field's name, with dots between the names where it lies in others",
            short(path)
        )));
    }
    if path.split('.').count() > CONDITION_DEPTH_MAX {
        return Err(E::custom(format_args!(
            "conditions: field `{}` lies deeper than {CONDITION_DEPTH_MAX} names; ask for one that lies higher",
            short(path)
        )));
    }
    Ok(())
}

/// Reads what is said of one field.
struct Tests<'a> {
    path: &'a str,
    count: &'a mut Count,
}

impl<'de> DeserializeSeed<'de> for Tests<'_> {
    type Value = Vec<Test>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Test>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tests<'_> {
    type Value = Vec<Test>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conditions: field `{}`: a map of operators, as {{\"eq\": \"north\"}}", short(self.path))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Test>, A::Error> {
        let Self { path, count } = self;
        let mut tests: Vec<(usize, Test)> = Vec::new();
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            let Some(operator) = OPERATORS.iter().position(|known| *known == name) else {
                return Err(A::Error::custom(format_args!(
                    "conditions: field `{}`: `{}` is no operator; use one of {}",
                    short(path),
                    short(&name),
                    OPERATORS.join(", ")
                )));
            };
            let operator_name = OPERATORS[operator];
            if tests.iter().any(|(other, _)| *other == operator) {
                return Err(A::Error::custom(format_args!(
                    "conditions: field `{}`: `{operator_name}` is there twice; say it once",
                    short(path)
                )));
            }
            count.add_test()?;
            let test = map.next_value_seed(Operand { path, operator: operator_name, count: &mut *count })?;
            tests.push((operator, test));
        }
        if tests.is_empty() {
            return Err(A::Error::custom(format_args!(
                "conditions: field `{}`: nothing is said of it; give it an operator, as {{\"eq\": \"north\"}}, or leave it out",
                short(path)
            )));
        }
        tests.sort_by_key(|(operator, _)| *operator);
        Ok(tests.into_iter().map(|(_, test)| test).collect())
    }
}

/// Reads what one operator compares with.
struct Operand<'a> {
    path: &'a str,
    operator: &'static str,
    count: &'a mut Count,
}

impl<'de> DeserializeSeed<'de> for Operand<'_> {
    type Value = Test;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Test, D::Error> {
        let Self { path, operator, count } = self;
        if operator == "in" {
            let mut values = deserializer.deserialize_any(List { path, count })?;
            values.sort_by(order);
            values.dedup();
            return Ok(Test::In(values));
        }
        let expect = match operator {
            "eq" | "ne" => VALUE,
            "prefix" => "a text",
            _ => "a number or a text",
        };
        let value = deserializer.deserialize_any(One { path, operator, expect, count })?;
        match (operator, value) {
            ("eq", value) => Ok(Test::Eq(value)),
            ("ne", value) => Ok(Test::Ne(value)),
            ("prefix", Value::Text(text)) => Ok(Test::Prefix(text)),
            ("gt", value @ (Value::Number(_) | Value::Text(_))) => Ok(Test::Gt(value)),
            ("gte", value @ (Value::Number(_) | Value::Text(_))) => Ok(Test::Gte(value)),
            ("lt", value @ (Value::Number(_) | Value::Text(_))) => Ok(Test::Lt(value)),
            ("lte", value @ (Value::Number(_) | Value::Text(_))) => Ok(Test::Lte(value)),
            _ => Err(D::Error::custom(format_args!(
                "conditions: field `{}`: `{operator}` compares with {expect}",
                short(path)
            ))),
        }
    }
}

/// The order of the values in a list; of those that may be in one, each two have one.
fn order(a: &Value, b: &Value) -> Ordering {
    a.against(b.as_found()).unwrap_or(Ordering::Equal)
}

/// Reads a value to compare with.
struct One<'a> {
    path: &'a str,
    operator: &'static str,
    expect: &'static str,
    count: &'a mut Count,
}

impl One<'_> {
    fn number<E: Error>(self, number: Number) -> Result<Value, E> {
        self.count.add_value(self.path)?;
        match number {
            Number::Float(float) if !float.is_finite() => Err(E::custom(format_args!(
                "conditions: field `{}`: `{}` compares with a finite number",
                short(self.path),
                self.operator
            ))),
            number => Ok(Value::Number(number)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for One<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for One<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conditions: field `{}`: `{}` with {}", short(self.path), self.operator, self.expect)
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.count.add_value(self.path)?;
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.count.add_value(self.path)?;
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        self.number(Number::Integer(number.into()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        self.number(Number::Integer(number.into()))
    }

    fn visit_f32<E: Error>(self, number: f32) -> Result<Value, E> {
        self.number(Number::short(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        self.number(Number::Float(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.count.add_value(self.path)?;
        self.count.add_bytes(text.len())?;
        Ok(Value::Text(text.into()))
    }
}

/// Reads the values of `in`.
struct List<'a> {
    path: &'a str,
    count: &'a mut Count,
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = Vec<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conditions: field `{}`: `in` with a list, as [\"north\", \"south\"]", short(self.path))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<Value>, A::Error> {
        let Self { path, count } = self;
        let mut values = Vec::new();
        while let Some(value) =
            items.next_element_seed(One { path, operator: "in", expect: VALUE, count: &mut *count })?
        {
            values.push(value);
        }
        Ok(values)
    }
}

impl Serialize for Conditions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.fields.len()))?;
        for field in &self.fields {
            map.serialize_entry(&*field.path, &Written(&field.tests))?;
        }
        map.end()
    }
}

/// The tests of a field as they are written.
struct Written<'a>(&'a [Test]);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for test in self.0 {
            match test {
                Test::Eq(value) => map.serialize_entry("eq", value)?,
                Test::Ne(value) => map.serialize_entry("ne", value)?,
                Test::In(values) => map.serialize_entry("in", values)?,
                Test::Gt(value) => map.serialize_entry("gt", value)?,
                Test::Gte(value) => map.serialize_entry("gte", value)?,
                Test::Lt(value) => map.serialize_entry("lt", value)?,
                Test::Lte(value) => map.serialize_entry("lte", value)?,
                Test::Prefix(text) => map.serialize_entry("prefix", &**text)?,
            }
        }
        map.end()
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(Number::Integer(number)) => match u64::try_from(*number) {
                Ok(number) => serializer.serialize_u64(number),
                // An integer that has a sign came as one of 64 bits.
                Err(_) => serializer.serialize_i64(*number as i64),
            },
            Self::Number(Number::Float(number)) => serializer.serialize_f64(*number),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}
