//! An event's fields from those of a form.
//!
//! A form has names and texts. What each text is, the event's schema says. Names reach into what is nested: `address.street`,
//! `lines[2].amount`, and `tags` or `tags[]` as often as there are values.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use edri_events::{Body, CodecError, Encoding};
use schemars::Schema;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::http::fields::{Types, resolve, to_value};
use crate::problem::FieldError;

/// The most fields of a form.
pub(super) const FIELDS_MAX: usize = 1_024;
/// How deep names reach.
const DEPTH_MAX: usize = 8;
/// What the names begin with of fields that are the form's own: its token, its number, and what browsers add.
const OWN: char = '_';

/// One field as it was sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) given: Given,
}

/// What was given for a field.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Given {
    Text(String),
    File(File),
}

/// A file, all of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) media: String,
    pub(super) bytes: Bytes,
}

/// A value as an event has it: what JSON has, and bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Field {
    Value(Value),
    Bytes(Bytes),
    List(Vec<Field>),
    Map(BTreeMap<String, Field>),
}

impl Field {
    fn has_bytes(&self) -> bool {
        match self {
            Self::Value(_) => false,
            Self::Bytes(_) => true,
            Self::List(items) => items.iter().any(Self::has_bytes),
            Self::Map(fields) => fields.values().any(Self::has_bytes),
        }
    }
}

impl Serialize for Field {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => value.serialize(serializer),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Self::Map(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                fields.iter().try_for_each(|(name, field)| map.serialize_entry(name, field))?;
                map.end()
            }
        }
    }
}

/// An event's fields.
#[derive(Debug, Default)]
pub(super) struct Fields(BTreeMap<String, Field>);

impl Fields {
    /// Makes them of what a form has, by the event's schema; otherwise says what is wrong with each.
    pub(super) fn of(schema: &Schema, entries: Vec<Entry>) -> Result<Self, Vec<FieldError>> {
        let root = schema.as_value();
        let mut errors = Vec::new();
        let mut form = Named::default();
        for entry in entries.into_iter().filter(|entry| !entry.name.starts_with(OWN)) {
            if let Err(error) = form.add(root, entry) {
                errors.push(error);
            }
        }
        let mut read = Reading { root, errors };
        let fields = read.map(Some(root), form, "", DEPTH_MAX);
        if read.errors.is_empty() { Ok(Self(fields)) } else { Err(read.errors) }
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Puts fields in the place of those that have their names.
    pub(super) fn extend(&mut self, fields: Map<String, Value>) {
        self.0.extend(fields.into_iter().map(|(name, value)| (name, Field::Value(value))));
    }

    /// The value of a field.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        match self.0.get(name)? {
            Field::Value(value) => Some(value),
            _ => None,
        }
    }

    /// The event, as JSON unless it has bytes.
    pub(super) fn encode(&self) -> Result<Body, CodecError> {
        let has_bytes = self.0.values().any(Field::has_bytes);
        Body::encode(if has_bytes { Encoding::MessagePack } else { Encoding::Json }, &self.0)
    }
}

/// What was given under one name, or under the names that reach further.
#[derive(Debug)]
enum Node {
    Leaf(Vec<Given>),
    Map(Named),
    /// By their numbers, which may have gaps.
    List(BTreeMap<usize, Node>),
}

#[derive(Debug, Default)]
struct Named(BTreeMap<String, Node>);

/// A step of a name into what is nested.
enum Step<'n> {
    Field(&'n str),
    Item(usize),
}

impl Named {
    fn add(&mut self, root: &Value, Entry { name, given }: Entry) -> Result<(), FieldError> {
        let wrong = |message: &str| FieldError { field: name.clone(), message: message.to_owned() };
        // A field may have any name.
        let is_field = root.get("properties").is_some_and(|properties| properties.get(&name).is_some());
        let steps = if is_field { vec![Step::Field(&name)] } else { steps(&name).map_err(wrong)? };
        let mut steps = steps.into_iter().peekable();
        let Some(Step::Field(first)) = steps.next() else { return Err(wrong("a name is needed")) };
        let empty = |next: Option<&Step<'_>>| match next {
            None => Node::Leaf(Vec::new()),
            Some(Step::Field(_)) => Node::Map(Self::default()),
            Some(Step::Item(_)) => Node::List(BTreeMap::new()),
        };
        let mut at = self.0.entry(first.to_owned()).or_insert_with(|| empty(steps.peek()));
        while let Some(step) = steps.next() {
            at = match (at, step) {
                (Node::Map(Self(fields)), Step::Field(name)) => {
                    fields.entry(name.to_owned()).or_insert_with(|| empty(steps.peek()))
                }
                (Node::List(items), Step::Item(number)) => items.entry(number).or_insert_with(|| empty(steps.peek())),
                _ => return Err(wrong(MIXED)),
            };
        }
        let Node::Leaf(values) = at else { return Err(wrong(MIXED)) };
        values.push(given);
        Ok(())
    }
}

const MIXED: &str = "another field of the form makes something else of it";

/// Reads `lines[2].amount`. An empty pair of brackets at the end says that there may be several.
fn steps(name: &str) -> Result<Vec<Step<'_>>, &'static str> {
    let name = name.strip_suffix("[]").unwrap_or(name);
    let mut steps = Vec::new();
    for part in name.split('.') {
        let (field, mut rest) = part.find('[').map_or((part, ""), |at| part.split_at(at));
        if field.is_empty() {
            return Err("a name is needed");
        }
        steps.push(Step::Field(field));
        while !rest.is_empty() {
            let (number, more) =
                rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).ok_or("brackets hold a number")?;
            steps.push(Step::Item(number.parse().map_err(|_| "brackets hold a number")?));
            rest = more;
        }
    }
    if steps.len() > DEPTH_MAX { Err("it reaches deeper than eight steps") } else { Ok(steps) }
}

struct Reading<'s> {
    root: &'s Value,
    errors: Vec<FieldError>,
}

impl<'s> Reading<'s> {
    fn wrong(&mut self, way: &str, message: impl Into<String>) -> Option<Field> {
        self.errors.push(FieldError { field: way.to_owned(), message: message.into() });
        None
    }

    /// The fields of a map. What a form does not send, because a browser does not, is made up for: a box that is not ticked is
    /// false, a list of which nothing is chosen is empty.
    fn map(&mut self, schema: Option<&'s Value>, form: Named, way: &str, depth: usize) -> BTreeMap<String, Field> {
        let schema = schema.and_then(|schema| part_with(self.root, schema, "properties", DEPTH_MAX));
        let properties = schema.and_then(|schema| schema.get("properties")).and_then(Value::as_object);
        let required = |name: &str| {
            let required = schema.and_then(|schema| schema.get("required")).and_then(Value::as_array);
            required.is_some_and(|names| names.iter().any(|known| known == name))
        };
        let mut fields = BTreeMap::new();
        for (name, node) in form.0 {
            let property = properties.and_then(|properties| properties.get(&name));
            if let Node::Leaf(values) = &node
                && let [Given::File(file)] = &**values
            {
                describe(file, &name, properties, &mut fields);
            }
            let is_taken = property.is_some() || properties.is_none() || schema.is_some_and(takes_more);
            // Such as the button that sent the form, when it has a name.
            if !is_taken {
                continue;
            }
            let inner = if way.is_empty() { name.clone() } else { format!("{way}.{name}") };
            if let Some(field) = self.node(property, node, required(&name), &inner, depth.saturating_sub(1)) {
                fields.insert(name, field);
            }
        }
        for (name, property) in properties.into_iter().flatten().filter(|(name, _)| required(name)) {
            if fields.contains_key(name) {
                continue;
            }
            let types = Types::of(self.root, property, DEPTH_MAX);
            if types.array && !types.null && !is_bytes(self.root, property) {
                fields.insert(name.clone(), Field::List(Vec::new()));
            } else if types.boolean && !types.null && !types.string {
                fields.insert(name.clone(), Field::Value(Value::Bool(false)));
            }
        }
        fields
    }

    fn node(
        &mut self,
        schema: Option<&'s Value>,
        node: Node,
        required: bool,
        way: &str,
        depth: usize,
    ) -> Option<Field> {
        match node {
            Node::Leaf(values) => self.leaf(schema, values, required, way),
            Node::Map(fields) => Some(Field::Map(self.map(schema, fields, way, depth))),
            Node::List(items) => {
                let schema = schema.and_then(|schema| part_with(self.root, schema, "items", DEPTH_MAX));
                let schema = schema.and_then(|schema| schema.get("items"));
                let items = items.into_iter().filter_map(|(number, item)| {
                    self.node(schema, item, true, &format!("{way}[{number}]"), depth.saturating_sub(1))
                });
                Some(Field::List(items.collect()))
            }
        }
    }

    fn leaf(&mut self, schema: Option<&'s Value>, mut values: Vec<Given>, required: bool, way: &str) -> Option<Field> {
        let types = schema.map(|schema| Types::of(self.root, schema, DEPTH_MAX)).unwrap_or_default();
        let takes_bytes = schema.is_some_and(|schema| is_bytes(self.root, schema));
        if types.array && !takes_bytes {
            let items = schema.and_then(|schema| part_with(self.root, schema, "items", DEPTH_MAX));
            let items = items.and_then(|schema| schema.get("items"));
            values.retain(|value| !value.is_empty());
            let items = values.into_iter().filter_map(|value| self.one(items, value, true, way));
            return Some(Field::List(items.collect()));
        }
        // A hidden field before a box says what the box is when it is not ticked.
        if types.boolean && values.len() > 1 {
            values.drain(..values.len() - 1);
        }
        let value = values.pop()?;
        if !values.is_empty() {
            return self.wrong(way, "it is given several times, and has one value");
        }
        self.one(schema, value, required, way)
    }

    /// The one value of a field; `None` when it is left out.
    fn one(&mut self, schema: Option<&'s Value>, given: Given, required: bool, way: &str) -> Option<Field> {
        let types = schema.map(|schema| Types::of(self.root, schema, DEPTH_MAX)).unwrap_or_default();
        let takes_bytes = schema.is_some_and(|schema| is_bytes(self.root, schema));
        let is_text = types.string && !schema.is_some_and(|schema| has_choices(self.root, schema));
        if given.is_empty() && (types.null || !required) && (types.null || !is_text) {
            return types.null.then_some(Field::Value(Value::Null));
        }
        match given {
            Given::File(file) if takes_bytes && file.name.is_empty() && file.bytes.is_empty() => {
                self.wrong(way, "a file is needed")
            }
            Given::File(file) if takes_bytes => Some(Field::Bytes(file.bytes)),
            Given::File(file) if types.string => match String::from_utf8(file.bytes.into()) {
                Ok(text) => Some(Field::Value(Value::String(text))),
                Err(_) => self.wrong(way, "the file is no text"),
            },
            Given::File(_) => self.wrong(way, "it takes no file"),
            Given::Text(text) if takes_bytes => Some(Field::Bytes(text.into())),
            Given::Text(text) if text.is_empty() && !types.string && schema.is_some() => {
                self.wrong(way, "it is needed")
            }
            Given::Text(text) => {
                let text = if types.boolean && !types.string { ticked(&text) } else { Cow::Owned(text) };
                match to_value(self.root, schema, &[text]) {
                    Ok(value) => Some(Field::Value(value)),
                    Err(message) => self.wrong(way, message),
                }
            }
        }
    }
}

impl Given {
    fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            // What a browser sends when no file was chosen.
            Self::File(file) => file.name.is_empty() && file.bytes.is_empty(),
        }
    }
}

/// The file's name and media type, where the event has fields for them: `photo_name` and `photo_type` beside `photo`.
fn describe(file: &File, field: &str, properties: Option<&Map<String, Value>>, fields: &mut BTreeMap<String, Field>) {
    for (suffix, text) in [("name", &file.name), ("type", &file.media)] {
        let name = format!("{field}_{suffix}");
        if !text.is_empty() && properties.is_some_and(|properties| properties.contains_key(&name)) {
            fields.insert(name, Field::Value(Value::String(text.clone())));
        }
    }
}

/// What a box sends: `on`, unless it has a value of its own.
fn ticked(text: &str) -> Cow<'static, str> {
    match text {
        "on" | "true" | "1" | "yes" => Cow::Borrowed("true"),
        "" | "off" | "false" | "0" | "no" => Cow::Borrowed("false"),
        other => Cow::Owned(other.to_owned()),
    }
}

/// The part of a schema that says this of it: itself, what it refers to, or one of its alternatives.
fn part_with<'s>(root: &'s Value, schema: &'s Value, word: &str, depth: usize) -> Option<&'s Value> {
    let schema = resolve(root, schema, depth)?;
    if schema.get(word).is_some() {
        return Some(schema);
    }
    let deeper = depth.checked_sub(1)?;
    let parts = ["anyOf", "oneOf", "allOf"].into_iter().filter_map(|word| schema.get(word)?.as_array()).flatten();
    parts.into_iter().find_map(|part| part_with(root, part, word, deeper))
}

fn is_bytes(root: &Value, schema: &Value) -> bool {
    let items = part_with(root, schema, "items", DEPTH_MAX).and_then(|schema| schema.get("items"));
    items.and_then(|items| items.get("format")).is_some_and(|format| format == "uint8")
}

/// Whether only some values are taken, so that an empty text is none of them.
fn has_choices(root: &Value, schema: &Value) -> bool {
    ["enum", "const"].iter().any(|word| part_with(root, schema, word, DEPTH_MAX).is_some())
}

fn takes_more(schema: &Value) -> bool {
    schema.get("additionalProperties").is_some_and(|more| *more != false)
}

#[cfg(test)]
mod tests {
    use schemars::{JsonSchema, schema_for};
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Urgency {
        Low,
        High,
    }

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    struct Line {
        item: String,
        amount: u32,
    }

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    struct Order {
        title: String,
        note: Option<String>,
        count: u32,
        #[serde(default)]
        price: f64,
        urgent: bool,
        gift: Option<bool>,
        tags: Vec<String>,
        #[serde(default)]
        urgency: Option<Urgency>,
        #[serde(default)]
        lines: Vec<Line>,
        to: Option<Line>,
        photo: Option<Bytes>,
        photo_name: Option<String>,
    }

    fn texts(form: &str) -> Vec<Entry> {
        let fields = form_urlencoded::parse(form.as_bytes());
        fields.map(|(name, value)| Entry { name: name.into_owned(), given: Given::Text(value.into_owned()) }).collect()
    }

    fn read(entries: Vec<Entry>) -> Result<Order, Vec<FieldError>> {
        let fields = Fields::of(&schema_for!(Order), entries)?;
        Ok(fields.encode().expect("encoded").decode().expect("an order"))
    }

    fn order() -> Order {
        read(texts("title=a&count=1")).expect("an order")
    }

    #[test]
    fn what_a_browser_does_not_send_is_made_up_for() {
        let order = order();
        assert_eq!((order.urgent, order.gift, order.tags.len()), (false, None, 0));
        assert!(read(texts("title=a&count=1&urgent=on")).expect("an order").urgent);
        assert!(!read(texts("title=a&count=1&urgent=true&urgent=false")).expect("an order").urgent, "the last counts");
    }

    #[test]
    fn an_empty_text_is_nothing_where_there_may_be_nothing_and_a_text_where_there_may_not() {
        let empty = read(texts("title=&note=&count=1&price=&urgency=&gift=&tags=&_csrf=x")).expect("an order");
        assert_eq!(empty, Order { title: String::new(), ..order() });
        let errors = read(texts("title=a&count=")).expect_err("a number");
        assert_eq!((&*errors[0].field, &*errors[0].message), ("count", "it is needed"));
    }

    #[test]
    fn lists_and_what_is_nested_are_reached_by_names_and_every_mistake_is_named() {
        let form = "title=a&count=7&tags=x&tags=y&urgency=high&save=1\
                    &lines[5].item=tea&lines[5].amount=2&lines[9].item=milk&lines[9].amount=1&to.item=me&to.amount=3";
        let full = read(texts(form)).expect("an order");
        assert_eq!((full.tags, full.urgency), (vec!["x".to_owned(), "y".to_owned()], Some(Urgency::High)));
        assert_eq!(full.lines.iter().map(|line| line.amount).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(full.to, Some(Line { item: "me".to_owned(), amount: 3 }));
        assert_eq!(read(texts("title=a&count=1&tags[]=x&tags[]=y")).expect("an order").tags, ["x", "y"]);
        let errors = read(texts("title=a&title=b&count=many&lines[2].amount=x&lines[q]=1&to.item=a&to=b"));
        let fields: Vec<_> = errors.expect_err("wrong").into_iter().map(|error| error.field).collect();
        assert_eq!(fields, ["lines[q]", "to", "count", "lines[2].amount", "title"]);
    }

    #[test]
    fn a_file_is_bytes_and_its_name_stands_beside_it() {
        let file = |name: &str, bytes: &'static [u8]| {
            let file = File { name: name.to_owned(), media: String::new(), bytes: Bytes::from_static(bytes) };
            let mut form = texts("title=a&count=1");
            form.push(Entry { name: "photo".to_owned(), given: Given::File(file) });
            read(form).expect("an order")
        };
        let with = file("a.png", &[0, 255]);
        assert_eq!((with.photo.as_deref(), with.photo_name.as_deref()), (Some(&[0, 255][..]), Some("a.png")));
        assert_eq!(file("", &[]), order(), "none was chosen");
    }

    #[test]
    fn no_name_makes_it_panic_or_grow() {
        for name in
            ["", ".", "[", "]", "a[", "a[]b", "a[1", "a[99999999999999999999999]", "a.b.c.d.e.f.g.h.i.j", "tags[]."]
        {
            let entry = Entry { name: name.to_owned(), given: Given::Text("x".to_owned()) };
            let _ = Fields::of(&schema_for!(Order), vec![entry]);
        }
        let far =
            Fields::of(&schema_for!(Order), texts("title=a&count=1&lines[18446744073709551615].item=x")).expect("read");
        assert!(far.encode().expect("encoded").bytes.len() < 200);
        let any = serde_json::from_value::<Schema>(json!(true)).expect("a schema");
        let fields = Fields::of(&any, texts("a=1&b=x")).expect("texts, as nothing is known");
        assert_eq!(fields.get("a"), Some(&json!("1")));
    }
}
