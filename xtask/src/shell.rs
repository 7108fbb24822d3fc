//! As much of a shell as finding the commands in a README needs: words, quotes, comments and what separates commands.

/// One command and the line of the text it begins on, counted from 0.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Invocation {
    pub(crate) line: usize,
    /// The program and its arguments, quotes removed. Variables set in front of it and a prompt are left away.
    pub(crate) words: Vec<String>,
}

/// The commands of a script, in order.
pub(crate) fn commands(script: &str) -> Vec<Invocation> {
    let mut reader = Reader::default();
    let mut characters = script.chars().peekable();
    while let Some(character) = characters.next() {
        match (reader.quote, character) {
            (Some(quote), _) if character == quote => reader.quote = None,
            (Some(_), _) => reader.push(character),
            (None, '"' | '\'') => {
                reader.quote = Some(character);
                reader.word.get_or_insert_default();
            }
            (None, '\\') => match characters.next() {
                Some('\n') => reader.end_word(),
                Some(escaped) => reader.push(escaped),
                None => {}
            },
            (None, '#') if reader.word.is_none() => while characters.next_if(|&next| next != '\n').is_some() {},
            (None, '\n' | ';' | '|' | '&' | '(' | ')') => reader.end_command(),
            (None, _) if character.is_whitespace() => reader.end_word(),
            (None, _) => reader.push(character),
        }
        reader.line += usize::from(character == '\n');
    }
    reader.end_command();
    reader.found
}

#[derive(Default)]
struct Reader {
    found: Vec<Invocation>,
    current: Invocation,
    word: Option<String>,
    quote: Option<char>,
    line: usize,
}

impl Reader {
    fn push(&mut self, character: char) {
        self.word.get_or_insert_default().push(character);
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        if self.current.words.is_empty() {
            if word == "$" || is_assignment(&word) {
                return;
            }
            self.current.line = self.line;
        }
        self.current.words.push(word);
    }

    fn end_command(&mut self) {
        self.end_word();
        let command = std::mem::take(&mut self.current);
        if !command.words.is_empty() {
            self.found.push(command);
        }
    }
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|character| character == '_' || character.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::commands;

    #[track_caller]
    fn check(script: &str, expected: &[(usize, &[&str])]) {
        let found = commands(script);
        let found: Vec<(usize, Vec<&str>)> =
            found.iter().map(|command| (command.line, command.words.iter().map(String::as_str).collect())).collect();
        let expected: Vec<(usize, Vec<&str>)> = expected.iter().map(|&(line, words)| (line, words.to_vec())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn commands_are_split_into_words() {
        check("cargo test\n\n$ A=1 cargo  run # why\n", &[(0, &["cargo", "test"]), (2, &["cargo", "run"])]);
        check("a && b | c & (d; e)", &[(0, &["a"]), (0, &["b"]), (0, &["c"]), (0, &["d"]), (0, &["e"])]);
    }

    #[test]
    fn quotes_hold_words_together() {
        check(
            "curl -d '{\"a\": 1; #}' \"b c\"\nd ''",
            &[(0, &["curl", "-d", "{\"a\": 1; #}", "b c"]), (1, &["d", ""])],
        );
    }

    #[test]
    fn a_command_goes_on_after_a_backslash() {
        check("cargo run \\\n  --example x\nnext", &[(0, &["cargo", "run", "--example", "x"]), (1, &["next"])]);
    }
}
