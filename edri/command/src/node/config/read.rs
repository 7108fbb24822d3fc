//! From a file and the environment to a [`Config`], with everything that is wrong on the way.
//!
//! The text is read into a table that knows where each value stands, the environment's values are put into it, and serde makes
//! the configuration of it. serde stops at the first mistake; so that all are told at once, what is wrong is noted, taken out of the
//! table, and the rest is tried again.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_path_to_error::Segment;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

use super::{Config, environment};

/// More mistakes than this are not told at once.
const PROBLEMS_MAX: usize = 100;
/// The longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// A name that differs in more than a third of its letters is no misspelling.
const SIMILAR_PARTS: usize = 3;

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The line and column, for their order.
    at: Option<(usize, usize)>,
    /// `edri.toml:3:7`, the name of a variable, or nothing where it belongs to no place.
    pub(crate) place: String,
    /// The path of the key, with dots; empty when there is none.
    pub(crate) key: String,
    /// What is wrong, and what to do.
    pub(crate) message: String,
}

impl Problem {
    /// One that stands at no line.
    pub(crate) fn of(place: &str, key: String, message: String) -> Self {
        Self { at: None, place: place.to_owned(), key, message }
    }

    /// In the order of the file.
    pub(crate) fn sort(problems: &mut [Self]) {
        problems.sort_by_key(|one| one.at);
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.place, &self.key].into_iter().filter(|part| !part.is_empty()) {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// What a configuration comes from.
#[derive(Debug)]
pub(crate) struct Source {
    /// What it is called in messages.
    name: String,
    text: String,
    /// The folder that its paths are relative to.
    pub(crate) folder: PathBuf,
    variables: Vec<environment::Variable>,
}

impl Source {
    /// Reads a file.
    pub(crate) fn file(path: &Path, variables: Vec<environment::Variable>) -> Result<Self, String> {
        let told = |error: std::io::Error| {
            format!("`{}` cannot be read: {error}; `edri run` without a file needs none", path.display())
        };
        let length = std::fs::metadata(path).map_err(told)?.len();
        if length > FILE_BYTES_MAX {
            return Err(format!(
                "`{}` has {length} bytes, and a configuration at most {FILE_BYTES_MAX}",
                path.display()
            ));
        }
        let text = std::fs::read_to_string(path).map_err(told)?;
        let whole = std::path::absolute(path).map_err(told)?;
        let folder = whole.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
        Ok(Self { name: path.display().to_string(), text, folder, variables })
    }

    /// A text that stands in for a file.
    pub(crate) fn text(name: &str, text: &str, folder: PathBuf, variables: Vec<environment::Variable>) -> Self {
        Self { name: name.to_owned(), text: text.to_owned(), folder, variables }
    }

    /// The configuration, as far as it can be read, and what is wrong.
    pub(crate) fn read(&self) -> (Document<'_>, Config, Vec<Problem>) {
        let (mut table, errors) = DeTable::parse_recoverable(&self.text);
        let mut document = Document { source: self, table: table.clone(), given: Vec::new(), taken_out: Vec::new() };
        let mut problems: Vec<Problem> = errors
            .iter()
            .take(PROBLEMS_MAX)
            .map(|error| document.problem_at(error.span(), String::new(), error.message().to_owned()))
            .collect();
        for variable in &self.variables {
            match environment::insert(table.get_mut(), variable) {
                Ok(path) => document.given.push((path, variable)),
                Err(message) => {
                    problems.push(Problem::of(&variable.name, String::new(), message));
                }
            }
        }
        document.table = table.clone();
        if !problems.is_empty() {
            // What follows from half a text is no use to anybody.
            return (document, Config::default(), problems);
        }
        let config = read_all(&mut document, table, &mut problems);
        (document, config, problems)
    }
}

/// A configuration as it was written.
pub(crate) struct Document<'s> {
    source: &'s Source,
    table: Spanned<DeTable<'s>>,
    /// What variables have set.
    given: Vec<(Vec<String>, &'s environment::Variable)>,
    /// The items of lists that were taken out, as they were numbered then.
    taken_out: Vec<Vec<String>>,
}

impl Document<'_> {
    /// Something is wrong with what stands at this path of the configuration that was read.
    pub(crate) fn problem(&self, path: &[String], message: String) -> Problem {
        let path = &self.as_written(path)[..];
        if let Some(variable) = self.variable(path) {
            return Problem::of(&variable.name, shown(path), message);
        }
        self.problem_at(self.span(path), shown(path), message)
    }

    /// The path with the numbers that items had before others were taken out.
    fn as_written(&self, path: &[String]) -> Vec<String> {
        let mut path = path.to_vec();
        for taken in self.taken_out.iter().rev() {
            let Some((index, list)) = taken.split_last() else { continue };
            let Some(number) = path.get(list.len()).filter(|_| path.starts_with(list)) else { continue };
            if let (Ok(number), Ok(index)) = (number.parse::<usize>(), index.parse::<usize>())
                && number >= index
            {
                path[list.len()] = (number + 1).to_string();
            }
        }
        path
    }

    /// The variable that has set what is at this path, or what it is in, or all that is in it.
    fn variable(&self, path: &[String]) -> Option<&environment::Variable> {
        let is_own = |given: &[String]| path.starts_with(given);
        let is_all = |given: &[String]| {
            given.starts_with(path) && !path.is_empty() && (1..=path.len()).contains(&self.depth(path).1)
        };
        let given = self.given.iter().find(|(given, _)| is_own(given) || is_all(given));
        given.map(|(_, variable)| *variable)
    }

    fn problem_at(&self, span: Option<Range<usize>>, key: String, message: String) -> Problem {
        let name = &self.source.name;
        let at = span.map(|span| line_and_column(&self.source.text, span.start));
        let place = at.map_or_else(|| name.clone(), |(line, column)| format!("{name}:{line}:{column}"));
        Problem { at, place, key, message }
    }

    /// Where the deepest part of this path stands that is in the file.
    fn span(&self, path: &[String]) -> Option<Range<usize>> {
        self.depth(path).0
    }

    /// As [`Self::span`], and after how many parts the path leads to what only variables have set; 0 when it never does.
    fn depth(&self, path: &[String]) -> (Option<Range<usize>>, usize) {
        let (mut found, mut first_elsewhere) = (None, 0);
        let mut table = Some(self.table.get_ref());
        let mut value: Option<&Spanned<DeValue<'_>>> = None;
        for (at, part) in path.iter().enumerate() {
            let entry = |table: &'_ DeTable<'_>| table.get_key_value(part.as_str()).map(|(key, _)| key.span());
            let next = match (table.take(), value) {
                (Some(table), _) => entry(table).zip(table.get(part.as_str())),
                (None, Some(value)) => match value.get_ref() {
                    DeValue::Table(table) => entry(table).zip(table.get(part.as_str())),
                    DeValue::Array(items) => {
                        part.parse().ok().and_then(|index: usize| items.get(index)).map(|item| (item.span(), item))
                    }
                    _ => None,
                },
                (None, None) => None,
            };
            let Some((span, inner)) = next else { break };
            if !span.is_empty() {
                found = Some(span);
            } else if first_elsewhere == 0 {
                first_elsewhere = at + 1;
            }
            value = Some(inner);
        }
        (found, first_elsewhere)
    }
}

/// Reads again and again, each time without what was found wrong.
fn read_all(document: &mut Document<'_>, mut table: Spanned<DeTable<'_>>, problems: &mut Vec<Problem>) -> Config {
    let mut wrong: Vec<Vec<String>> = Vec::new();
    while problems.len() < PROBLEMS_MAX {
        let error = match serde_path_to_error::deserialize(Deserializer::from(table.clone())) {
            Ok(config) => return config,
            Err(error) => error,
        };
        let mut path: Vec<String> = error.path().iter().filter_map(segment).collect();
        let message = error.inner().message().to_owned();
        // What was meant as a text may look like something else.
        let variable = document.variable(&document.as_written(&path));
        if variable.is_some_and(|variable| environment::as_text(table.get_mut(), &path, variable)) {
            continue;
        }
        let missing = message.starts_with("missing field");
        let unknown = quoted(&message).filter(|_| message.starts_with("unknown field"));
        if let Some(name) = unknown
            && path.last().map(String::as_str) != Some(name)
        {
            path.push(name.to_owned());
        }
        // Something that lacks only what was taken out of it has been told of.
        let written = document.as_written(&path);
        if !(missing && wrong.iter().any(|before| before.starts_with(&written))) {
            problems.push(document.problem(&path, told(&message)));
        }
        match take_out(table.get_mut(), &path) {
            None => return Config::default(),
            Some(TakenOut::Key) => {}
            Some(TakenOut::Item) => document.taken_out.push(path.clone()),
        }
        wrong.push(written);
    }
    Config::default()
}

fn segment(segment: &Segment) -> Option<String> {
    match segment {
        Segment::Map { key } => Some(key.clone()),
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Enum { .. } | Segment::Unknown => None,
    }
}

/// What was taken out.
enum TakenOut {
    Key,
    /// Those behind it have other numbers now.
    Item,
}

/// Takes out what stands at a path, if it is there.
fn take_out(table: &mut DeTable<'_>, path: &[String]) -> Option<TakenOut> {
    match path {
        [] => None,
        [last] => table.remove(last.as_str()).map(|_| TakenOut::Key),
        [first, rest @ ..] => take_out_of(table.get_mut(first.as_str())?.get_mut(), rest),
    }
}

fn take_out_of(value: &mut DeValue<'_>, path: &[String]) -> Option<TakenOut> {
    match (value, path) {
        (DeValue::Table(table), path) => take_out(table, path),
        (DeValue::Array(items), [index, rest @ ..]) => {
            let index = index.parse().ok().filter(|index: &usize| *index < items.len())?;
            if !rest.is_empty() {
                return take_out_of(items.get_mut(index)?.get_mut(), rest);
            }
            let others = items.iter().enumerate().filter(|(at, _)| *at != index).map(|(_, item)| item.clone());
            let others: DeArray<'_> = others.collect();
            *items = others;
            Some(TakenOut::Item)
        }
        _ => None,
    }
}

/// serde's words, with advice.
fn told(message: &str) -> String {
    let Some(name) = quoted(message) else { return in_words(message) };
    let is_unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    if !is_unknown {
        return in_words(message).replace("missing field", "it lacks");
    }
    let known: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
    match nearest(name, &known) {
        Some(near) => format!("`{name}` is not known: did you mean `{near}`?"),
        None if known.is_empty() => format!("`{name}` is not known, and nothing can stand here"),
        None => format!("`{name}` is not known: there is {}", listed(&known)),
    }
}

/// Without the names that Rust has for numbers and tables.
fn in_words(message: &str) -> String {
    let Some((what, expected)) = message.rsplit_once(", expected ") else { return message.to_owned() };
    let expected = match expected {
        "usize" | "u8" | "u16" | "u32" | "u64" => "a whole number",
        "a boolean" => "`true` or `false`",
        "a map" => "a table",
        "a sequence" => "a list",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    format!("{what}, expected {expected}")
}

/// What is in the first pair of backticks.
fn quoted(message: &str) -> Option<&str> {
    message.split('`').nth(1)
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The name that this one was probably meant to be.
pub(crate) fn nearest<'n>(name: &str, known: &[&'n str]) -> Option<&'n str> {
    let distance = |other: &str| strsim::damerau_levenshtein(&name.to_ascii_lowercase(), other);
    let near = known.iter().copied().min_by_key(|other| distance(other))?;
    (distance(near) <= name.len().max(near.len()).div_ceil(SIMILAR_PARTS)).then_some(near)
}

fn shown(path: &[String]) -> String {
    path.join(".")
}

/// Both from 1; columns are characters.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// For the types of the configuration: a value of any shape.
pub(crate) fn any<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<serde_json::Value, D::Error> {
    let value = toml::Value::deserialize(deserializer)?;
    Ok(json(value))
}

/// As [`any`], for what may be left out.
pub(crate) fn any_option<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<serde_json::Value>, D::Error> {
    any(deserializer).map(Some)
}

/// TOML's values as those of JSON; times become texts.
fn json(value: toml::Value) -> serde_json::Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(is) => is.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(items) => items.into_iter().map(json).collect(),
        toml::Value::Table(table) => table.into_iter().map(|(name, value)| (name, json(value))).collect(),
    }
}
