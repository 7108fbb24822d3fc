//! Variables of the environment that override a configuration: `EDRI__API__BIND` is `api.bind`.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What their names begin with.
const PREFIX: &str = "EDRI__";

/// A variable and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: String,
    /// As it came.
    text: String,
    /// `value = ` and the text, to be read as TOML.
    line: String,
}

impl Variable {
    pub(crate) fn new(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), text: value.to_owned(), line: format!("value = {value}") }
    }

    /// Those of this process, in the order of their names: what is set as a whole comes before its parts.
    pub(crate) fn all() -> Vec<Self> {
        let named = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        let mut found: Vec<_> = named
            .filter(|(name, _)| name.starts_with(PREFIX))
            .map(|(name, value)| Self::new(&name, &value.to_string_lossy()))
            .collect();
        found.sort_by(|one, other| one.name.cmp(&other.name));
        found
    }

    /// The value as TOML if it is, and otherwise as the text that it is.
    fn value(&self) -> DeValue<'_> {
        let read = DeTable::parse(&self.line).ok().map(Spanned::into_inner);
        // `1\nother = 2` is no value.
        let value = read.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
        value.map_or_else(|| self.as_text(), Spanned::into_inner)
    }

    fn as_text(&self) -> DeValue<'_> {
        DeValue::String(Cow::Borrowed(&self.text))
    }
}

/// Puts a variable's value where it belongs, and says where that is.
pub(crate) fn insert<'v>(table: &mut DeTable<'v>, variable: &'v Variable) -> Result<Vec<String>, String> {
    let rest = variable.name.strip_prefix(PREFIX).unwrap_or_default();
    let parts: Vec<&str> = rest.split("__").collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err("it names no key: write it like `EDRI__API__BIND`, two underscores between names".to_owned());
    }
    let mut path = Vec::new();
    insert_at(table, &parts, variable, &mut path)?;
    Ok(path)
}

fn insert_at<'v>(
    table: &mut DeTable<'v>,
    parts: &[&str],
    variable: &'v Variable,
    path: &mut Vec<String>,
) -> Result<(), String> {
    let [first, rest @ ..] = parts else { return Ok(()) };
    // Names that the file has count as it writes them.
    let same = table.keys().map(|key| key.get_ref().to_string()).find(|key| key.eq_ignore_ascii_case(first));
    let key = same.unwrap_or_else(|| first.to_ascii_lowercase());
    path.push(key.clone());
    if rest.is_empty() {
        table.insert(nowhere(Cow::Owned(key)), nowhere(variable.value()));
        return Ok(());
    }
    if table.get(key.as_str()).is_none() {
        table.insert(nowhere(Cow::Owned(key.clone())), nowhere(DeValue::Table(DeTable::new())));
    }
    match table.get_mut(key.as_str()).map(Spanned::get_mut) {
        Some(value) => insert_in(value, rest, variable, path),
        None => Ok(()),
    }
}

fn insert_in<'v>(
    value: &mut DeValue<'v>,
    parts: &[&str],
    variable: &'v Variable,
    path: &mut Vec<String>,
) -> Result<(), String> {
    match (value, parts) {
        (DeValue::Table(table), parts) => insert_at(table, parts, variable, path),
        (DeValue::Array(items), [index, rest @ ..]) => {
            let count = items.len();
            let item = index.parse().ok().and_then(|index: usize| items.get_mut(index));
            let Some(item) = item else {
                return Err(format!("`{}` has {count} entries, counted from 0: there is no `{index}`", path.join(".")));
            };
            path.push((*index).to_owned());
            if rest.is_empty() {
                *item = nowhere(variable.value());
                return Ok(());
            }
            insert_in(item.get_mut(), rest, variable, path)
        }
        _ => Err(format!("`{}` is a value and has nothing within: set it as a whole", path.join("."))),
    }
}

/// Takes a value that was read as TOML for the text that it may have been meant to be; false when it is one already.
pub(crate) fn as_text<'v>(table: &mut DeTable<'v>, path: &[String], variable: &Variable) -> bool {
    let Some(value) = find(table, path) else { return false };
    if !matches!(value, DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_)) {
        return false;
    }
    *value = DeValue::String(Cow::Owned(variable.text.clone()));
    true
}

fn find<'t, 'v>(table: &'t mut DeTable<'v>, path: &[String]) -> Option<&'t mut DeValue<'v>> {
    let (first, rest) = path.split_first()?;
    let mut value = table.get_mut(first.as_str())?.get_mut();
    for part in rest {
        value = match value {
            DeValue::Table(table) => table.get_mut(part.as_str())?.get_mut(),
            DeValue::Array(items) => items.get_mut(part.parse::<usize>().ok()?)?.get_mut(),
            _ => return None,
        };
    }
    Some(value)
}

/// What does not stand in the file.
fn nowhere<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}
