//! As much of JSON as reading `cargo metadata` needs.

use std::iter::Peekable;
use std::str::Chars;

/// A JSON value. What nobody here asks for, numbers, booleans and null, is [`Json::Other`].
#[derive(Debug, PartialEq)]
pub(crate) enum Json {
    Text(String),
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
    Other,
}

impl Json {
    /// The value of the whole text, or `None` when it is not one JSON value.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut reader = Reader { rest: text.chars().peekable() };
        let value = reader.value()?;
        reader.next_mark().is_none().then_some(value)
    }

    /// The value under `key`, when this is a map that has one.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(crate) fn list(&self) -> Option<&[Self]> {
        if let Self::List(values) = self { Some(values) } else { None }
    }
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Reader<'_> {
    fn value(&mut self) -> Option<Json> {
        match self.next_mark()? {
            '"' => self.text().map(Json::Text),
            '[' => self.sequence(']', Self::value).map(Json::List),
            '{' => self.sequence('}', Self::entry).map(Json::Map),
            _ => {
                while self.rest.next_if(|&next| next.is_ascii_alphanumeric() || "+-.".contains(next)).is_some() {}
                Some(Json::Other)
            }
        }
    }

    fn entry(&mut self) -> Option<(String, Json)> {
        let key = self.value()?.text()?.to_owned();
        if self.next_mark()? != ':' {
            return None;
        }
        Some((key, self.value()?))
    }

    /// What stands between an opening bracket, already read, and `end`.
    fn sequence<T>(&mut self, end: char, item: fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut items = Vec::new();
        self.skip_space();
        if self.rest.next_if_eq(&end).is_some() {
            return Some(items);
        }
        loop {
            items.push(item(self)?);
            match self.next_mark()? {
                ',' => {}
                mark if mark == end => return Some(items),
                _ => return None,
            }
        }
    }

    /// A text whose opening quote was read.
    fn text(&mut self) -> Option<String> {
        let mut units: Vec<u16> = Vec::new();
        loop {
            let character = match self.rest.next()? {
                '"' => return String::from_utf16(&units).ok(),
                '\\' => match self.rest.next()? {
                    'u' => {
                        units.push(self.unit()?);
                        continue;
                    }
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    same => same,
                },
                plain => plain,
            };
            units.extend_from_slice(character.encode_utf16(&mut [0; 2]));
        }
    }

    /// The four digits of `\uXXXX`: half of a pair when the character is beyond the first plane.
    fn unit(&mut self) -> Option<u16> {
        let digits: String = self.rest.by_ref().take(4).collect();
        u16::from_str_radix(&digits, 16).ok()
    }

    fn next_mark(&mut self) -> Option<char> {
        self.skip_space();
        self.rest.next()
    }

    fn skip_space(&mut self) {
        while self.rest.next_if(|next| next.is_ascii_whitespace()).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::Json;

    fn text(value: &str) -> Json {
        Json::Text(value.to_owned())
    }

    #[test]
    fn nested_values_are_read() {
        let json = Json::parse(r#" { "a": [1.5e-3, null, {"b": "c"}], "d": {}, "e": [ ] } "#).unwrap();
        let list = json.get("a").unwrap().list().unwrap();
        assert_eq!(list[..2], [Json::Other, Json::Other]);
        assert_eq!(list[2].get("b"), Some(&text("c")));
        assert_eq!(json.get("d"), Some(&Json::Map(Vec::new())));
        assert_eq!(json.get("e"), Some(&Json::List(Vec::new())));
        assert_eq!(json.get("f"), None);
    }

    #[test]
    fn escapes_are_read() {
        assert_eq!(Json::parse(r#""a\"\\\/\n\u00e9\ud83e\udd80""#), Some(text("a\"\\/\né🦀")));
    }

    #[test]
    fn what_is_cut_or_followed_by_more_is_refused() {
        for wrong in ["", "[1", "{\"a\" 1}", "{1: 2}", "\"a", "\"\\u12", "[] []"] {
            assert_eq!(Json::parse(wrong), None, "{wrong}");
        }
    }
}
