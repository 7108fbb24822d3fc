//! Rules of the user's own for payloads: functions that are called for what no schema can say.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{Display, Write as _};

use crate::{FIELD_ERRORS_MAX, FieldError, Invalid};

/// Collects what such functions refuse, and where.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct FieldErrors {
    way: Vec<Part>,
    errors: Vec<FieldError>,
}

#[derive(Debug)]
enum Part {
    Name(&'static str),
    Entry(String),
    Index(usize),
}

impl FieldErrors {
    /// Looks at what is under this name, or at `[number]`.
    pub fn within(&mut self, name: &'static str, look: impl FnOnce(&mut Self)) {
        self.at(Part::Name(name), look);
    }

    fn at(&mut self, part: Part, look: impl FnOnce(&mut Self)) {
        self.way.push(part);
        look(self);
        self.way.pop();
    }

    /// What is looked at is refused.
    pub fn refuse(&mut self, why: &dyn Display) {
        if self.errors.len() < FIELD_ERRORS_MAX {
            self.errors.push(FieldError::new(self.place(), why.to_string()));
        }
    }

    fn place(&self) -> String {
        let mut place = String::new();
        for part in &self.way {
            let dot = if place.is_empty() { "" } else { "." };
            let written = match part {
                Part::Name(name) if name.starts_with('[') => write!(place, "{name}"),
                Part::Name(name) => write!(place, "{dot}{name}"),
                Part::Entry(name) => write!(place, "{dot}{name}"),
                Part::Index(index) => write!(place, "[{index}]"),
            };
            debug_assert!(written.is_ok(), "a String takes all");
        }
        place
    }

    /// All that was refused.
    #[must_use]
    pub fn into_invalid(self) -> Option<Invalid> {
        Invalid::new(self.errors)
    }
}

/// A type that may have rules of the user's own, or hold what has.
#[doc(hidden)]
pub trait Checked {
    /// Calls them.
    fn check(&self, errors: &mut FieldErrors);
}

impl<T: Checked> Checked for Option<T> {
    fn check(&self, errors: &mut FieldErrors) {
        if let Some(value) = self {
            value.check(errors);
        }
    }
}

impl<T: Checked> Checked for Box<T> {
    fn check(&self, errors: &mut FieldErrors) {
        (**self).check(errors);
    }
}

impl<T: Checked> Checked for Vec<T> {
    fn check(&self, errors: &mut FieldErrors) {
        for (index, item) in self.iter().enumerate() {
            errors.at(Part::Index(index), |errors| item.check(errors));
        }
    }
}

impl<K: Display, T: Checked> Checked for BTreeMap<K, T> {
    fn check(&self, errors: &mut FieldErrors) {
        for (name, value) in self {
            errors.at(Part::Entry(name.to_string()), |errors| value.check(errors));
        }
    }
}

impl<K: Display, T: Checked, S> Checked for HashMap<K, T, S> {
    fn check(&self, errors: &mut FieldErrors) {
        for (name, value) in self {
            errors.at(Part::Entry(name.to_string()), |errors| value.check(errors));
        }
    }
}

/// A field, to be looked at by `(&&Field(&self.field)).check(errors)`: types that are no [`Checked`] have no rules.
#[doc(hidden)]
#[derive(Debug)]
pub struct Field<'a, T: ?Sized>(pub &'a T);

/// Types that may have rules.
#[doc(hidden)]
pub trait Known {
    /// Calls them.
    fn check(&self, errors: &mut FieldErrors);
}

/// All others.
#[doc(hidden)]
pub trait Unknown {
    /// Nothing that is known of.
    fn check(&self, errors: &mut FieldErrors) {
        let _ = errors;
    }
}

impl<T: Checked> Known for &Field<'_, T> {
    fn check(&self, errors: &mut FieldErrors) {
        self.0.check(errors);
    }
}

impl<T: ?Sized> Unknown for Field<'_, T> {}
