//! What a Rust file says about other files and about tests, read from its tokens: comments and texts do not confuse it,
//! and what is behind a `cfg` or inside a macro call counts too.

/// What a file refers to and holds.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outline {
    /// Modules in files of their own.
    pub(crate) modules: Vec<Module>,
    /// Files taken in by `include!` and its relatives.
    pub(crate) includes: Vec<String>,
    /// Names of modules written out in the file.
    pub(crate) inline: Vec<String>,
    /// Functions under an attribute whose last word is `test`.
    pub(crate) tests: Vec<String>,
}

/// `mod name;`
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Module {
    pub(crate) name: String,
    /// The inline modules around it, outermost first.
    pub(crate) inside: Vec<String>,
    /// What `#[path = ".."]` says.
    pub(crate) path: Option<String>,
}

impl Outline {
    pub(crate) fn read(source: &str) -> Self {
        let tokens = tokens(source);
        let mut outline = Self::default();
        let mut attributes = Attributes::default();
        // The inline modules we are in, each with the depth of braces it stands at.
        let mut inside: Vec<(usize, String)> = Vec::new();
        let mut depth = 0;
        let mut at = 0;
        while at < tokens.len() {
            use Token::{Mark, Text, Word};
            let used = match tokens[at..] {
                [Mark('#'), Mark('['), ..] => 2 + attributes.read(&tokens[at + 2..]),
                [Word("mod"), Word(name), Mark(';'), ..] => {
                    let inside = inside.iter().map(|(_, name)| name.clone()).collect();
                    outline.modules.push(Module { name: name.to_owned(), inside, path: attributes.path.take() });
                    2
                }
                [Word("mod"), Word(name), Mark('{'), ..] => {
                    inside.push((depth, name.to_owned()));
                    outline.inline.push(name.to_owned());
                    2
                }
                [Word("fn"), Word(name), ..] if attributes.test => {
                    outline.tests.push(name.to_owned());
                    2
                }
                [Word("include" | "include_str" | "include_bytes"), Mark('!'), Mark('('), Text(path), ..] => {
                    outline.includes.push(path.to_owned());
                    4
                }
                [Mark(mark @ (';' | '{' | '}')), ..] => {
                    attributes = Attributes::default();
                    match mark {
                        '{' => depth += 1,
                        '}' => depth = depth.saturating_sub(1),
                        _ => {}
                    }
                    inside.pop_if(|(outer, _)| mark == '}' && *outer == depth);
                    1
                }
                _ => 1,
            };
            at += used;
        }
        outline
    }
}

/// What the attributes of the coming item say.
#[derive(Default)]
struct Attributes {
    path: Option<String>,
    test: bool,
}

impl Attributes {
    /// Takes in one attribute whose `#[` was read; returns how many tokens it has.
    fn read(&mut self, tokens: &[Token<'_>]) -> usize {
        use Token::{Mark, Text, Word};
        if let [Word("path"), Mark('='), Text(path), ..] = tokens {
            self.path = Some((*path).to_owned());
        }
        let name = tokens.iter().take_while(|token| matches!(token, Word(_) | Mark(':'))).last();
        self.test |= matches!(name, Some(Word("test")));
        let mut open = 1;
        for (index, token) in tokens.iter().enumerate() {
            match token {
                Mark('[') => open += 1,
                Mark(']') => open -= 1,
                _ => {}
            }
            if open == 0 {
                return index + 1;
            }
        }
        tokens.len()
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token<'a> {
    Word(&'a str),
    /// What stands between the quotes of a text, its escapes as written.
    Text(&'a str),
    Mark(char),
}

/// The tokens of a file without comments, characters and lifetimes.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let used = if first.is_whitespace() {
            first.len_utf8()
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some((text, used)) = text(rest) {
            found.push(Token::Text(text));
            used
        } else if first == '\'' {
            quote(rest)
        } else if is_word(first) {
            // `r#mod` is the name `mod`; nobody asks for it, and its mark must not begin an attribute.
            let word = &rest[..rest.find(|next| !is_word(next)).unwrap_or(rest.len())];
            let raw = word == "r" && rest[1..].starts_with('#');
            found.push(Token::Word(word));
            word.len() + usize::from(raw)
        } else {
            found.push(Token::Mark(first));
            first.len_utf8()
        };
        rest = &rest[used..];
    }
    found
}

fn is_word(character: char) -> bool {
    character == '_' || character.is_alphanumeric()
}

/// How long the comment at the start is; comments of this kind nest.
fn block_comment(rest: &str) -> usize {
    let mut open = 0;
    let mut at = 0;
    while at < rest.len() {
        let pair = rest.as_bytes().get(at..at + 2);
        match pair {
            Some(b"/*") => open += 1,
            Some(b"*/") => open -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if open == 0 {
            return at;
        }
    }
    rest.len()
}

/// The contents and the whole length of the text at the start, if there is one: `".."`, `r#".."#`, `b".."` and so on.
fn text(rest: &str) -> Option<(&str, usize)> {
    let after_prefix = rest.trim_start_matches(['b', 'c']);
    let plain = rest.len() - after_prefix.len();
    if plain <= 1 && after_prefix.starts_with('"') {
        let start = plain + 1;
        let length = plain_length(&rest[start..]);
        return Some((&rest[start..start + length], (start + length + 1).min(rest.len())));
    }
    let raw = after_prefix.strip_prefix('r').filter(|_| plain <= 1)?;
    let marks = raw.len() - raw.trim_start_matches('#').len();
    let body = raw[marks..].strip_prefix('"')?;
    let start = rest.len() - body.len();
    let end = format!("\"{}", "#".repeat(marks));
    let length = body.find(&end).unwrap_or(body.len());
    Some((&body[..length], (start + length + end.len()).min(rest.len())))
}

/// Where the closing quote is.
fn plain_length(body: &str) -> usize {
    let mut escaped = false;
    for (at, character) in body.char_indices() {
        match character {
            '"' if !escaped => return at,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    body.len()
}

/// How long the character at the start is, or its quote alone when it begins a lifetime.
fn quote(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), Some((escaped, character))) => {
            let from = escaped + character.len_utf8();
            rest[from..].find('\'').map_or(rest.len(), |end| from + end + 1)
        }
        (Some(_), Some((end, '\''))) => end + 1,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::{Module, Outline};

    fn module(name: &str, inside: &[&str], path: Option<&str>) -> Module {
        let inside = inside.iter().map(|&name| name.to_owned()).collect();
        Module { name: name.to_owned(), inside, path: path.map(str::to_owned) }
    }

    #[track_caller]
    fn check_modules(source: &str, expected: &[Module]) {
        assert_eq!(Outline::read(source).modules, expected);
    }

    #[test]
    fn modules_in_files_are_found_with_what_is_around_them() {
        check_modules(
            "pub(crate) mod a; #[cfg(test)] mod b { fn f() { {} } mod c; } mod d;",
            &[module("a", &[], None), module("c", &["b"], None), module("d", &[], None)],
        );
    }

    #[test]
    fn a_path_belongs_to_the_next_module_alone() {
        check_modules(
            "#[cfg(test)] #[path = \"x/y.rs\"] mod a; mod b; #[path = \"z.rs\"] struct S; mod c;",
            &[module("a", &[], Some("x/y.rs")), module("b", &[], None), module("c", &[], None)],
        );
    }

    #[test]
    fn comments_texts_and_characters_hold_no_modules() {
        check_modules(
            r###"
            // mod a;
            /* mod b; /* mod c; */ mod d; */
            const X: &str = "\" mod e;"; const Y: &str = r#"" mod f;"#; const Z: &[u8] = b"mod g;";
            fn f<'a>(x: &'a str) -> [char; 4] { ['"', '\'', '\u{22}', 'é'] }
            fn r#mod() {}
            mod real;
            "###,
            &[module("real", &[], None)],
        );
    }

    #[test]
    fn included_files_are_found() {
        assert_eq!(Outline::read("include!(\"a.rs\"); f(include_str!(\"../b.rs\"))").includes, ["a.rs", "../b.rs"]);
    }

    #[test]
    fn tests_are_functions_under_a_test_attribute() {
        let source = "
            #[test] fn one() {}
            #[tokio::test(flavor = \"multi_thread\")] #[ignore = \"slow\"] async fn two() { helper() }
            #[cfg(test)] mod inner { fn helper() {} proptest! { #[test] fn three(x in 0..9) {} } }
            fn helper() {}
        ";
        let outline = Outline::read(source);
        assert_eq!(outline.tests, ["one", "two", "three"]);
        assert_eq!(outline.inline, ["inner"]);
    }

    #[test]
    fn a_cut_file_ends_the_outline() {
        for source in ["/* mod a;", "\"mod a;", "r#\"mod a;", "'\\", "#[path = ", "b", "r", "'"] {
            assert_eq!(Outline::read(source).modules, [], "{source}");
        }
    }
}
