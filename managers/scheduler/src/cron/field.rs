//! One field of an expression of five.

use std::ops::RangeInclusive;

/// What a field is called and may hold.
pub(super) struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
    /// What the first of the names stands for.
    first: u32,
}

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

impl Field {
    pub(super) const MINUTE: Self = Self { name: "minute", least: 0, most: 59, names: &[], first: 0 };
    pub(super) const HOUR: Self = Self { name: "hour", least: 0, most: 23, names: &[], first: 0 };
    pub(super) const DAY: Self = Self { name: "day of the month", least: 1, most: 31, names: &[], first: 0 };
    pub(super) const MONTH: Self = Self { name: "month", least: 1, most: 12, names: &MONTHS, first: 1 };
    pub(super) const WEEKDAY: Self = Self { name: "day of the week", least: 0, most: 7, names: &WEEKDAYS, first: 0 };

    /// The numbers that a text names, as the bits of a number.
    pub(super) fn parse(&self, text: &str) -> Result<u64, String> {
        let mut set = 0;
        for part in text.split(',') {
            set |= self.part(part).map_err(|wrong| format!("{}: {wrong}", self.name))?;
        }
        Ok(set)
    }

    fn part(&self, part: &str) -> Result<u64, String> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(self.step(step)?)),
            None => (part, None),
        };
        let range = match range.split_once('-') {
            _ if range == "*" => self.least..=self.last(),
            Some((from, to)) => self.range(from, to)?,
            None => {
                let number = self.number(range)?;
                if let Some(step) = step {
                    return Err(format!(
                        "`{part}` has a step without a range: write `{number}-{}/{step}`",
                        self.last()
                    ));
                }
                number..=number
            }
        };
        Ok(bits(range.step_by(step.unwrap_or(1))))
    }

    fn range(&self, from: &str, to: &str) -> Result<RangeInclusive<u32>, String> {
        let (first, last) = (self.number(from)?, self.number(to)?);
        if first > last {
            return Err(format!("`{from}-{to}` runs backwards: write `{from}-{},{}-{to}`", self.last(), self.least));
        }
        Ok(first..=last)
    }

    fn step(&self, text: &str) -> Result<usize, String> {
        match text.parse() {
            Ok(step @ 1..=99) if is_number(text) => Ok(step),
            _ => Err(format!("`{text}` is no step: a number from 1 on")),
        }
    }

    fn number(&self, text: &str) -> Result<u32, String> {
        if let Some(index) = self.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            // Twelve names at most.
            return Ok(self.first + index as u32);
        }
        let Self { least, most, .. } = *self;
        match text.parse() {
            Ok(number) if is_number(text) && (least..=most).contains(&number) => Ok(number),
            Ok(number) if is_number(text) => Err(format!("{number} is not within {least} to {most}")),
            _ => Err(format!("`{text}` is neither a number from {least} to {most}{}", self.or_what())),
        }
    }

    fn or_what(&self) -> String {
        match self.names {
            [first, .., last] => format!(", a name from {first} to {last}, a range, a list, nor `*`"),
            _ => ", a range, a list, nor `*`".to_owned(),
        }
    }

    /// The last of a range that is not written out; 7 is a second name of Sunday and none of its own.
    fn last(&self) -> u32 {
        if self.most == 7 { 6 } else { self.most }
    }

    /// The set of everything the field may hold.
    pub(super) fn all(&self) -> u64 {
        bits(self.least..=self.last())
    }

    /// The set as the crate reads it.
    pub(super) fn list(&self, set: u64) -> String {
        if set == self.all() { "*".to_owned() } else { numbers(set) }
    }
}

/// More digits than these are no number of any field, and `parse` would take a sign.
fn is_number(text: &str) -> bool {
    text.len() <= 4 && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn bits(numbers: impl Iterator<Item = u32>) -> u64 {
    numbers.fold(0, |set, number| set | 1 << number)
}

/// The numbers of a set with commas between them.
pub(super) fn numbers(set: u64) -> String {
    let numbers = (0..64).filter(|number| set & (1 << number) != 0).map(|number| number.to_string());
    numbers.collect::<Vec<_>>().join(",")
}
