//! As much of Markdown as the rules need: headings, links, code spans and fenced blocks, each with its line.

/// What stands at a line, counted from 1.
#[derive(Debug, PartialEq)]
pub(crate) struct At<T> {
    pub(crate) line: usize,
    pub(crate) it: T,
}

#[derive(Debug, Default)]
pub(crate) struct Document {
    /// What a `#fragment` can name: headings, as GitHub turns them into anchors, and `id` attributes.
    pub(crate) anchors: Vec<String>,
    /// Targets of links and images, as written.
    pub(crate) links: Vec<At<String>>,
    /// Code spans.
    pub(crate) spans: Vec<At<String>>,
    pub(crate) fences: Vec<At<Fence>>,
}

/// A block between fences; its line is that of its first line of code.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Fence {
    /// The first word after the opening fence.
    pub(crate) language: String,
    pub(crate) code: String,
}

impl Document {
    pub(crate) fn read(text: &str) -> Self {
        let mut document = Self::default();
        let mut open: Option<(&str, At<Fence>)> = None;
        for (index, whole) in text.lines().enumerate() {
            let line = whole.trim_start();
            match &mut open {
                Some((marks, fence)) if !line.starts_with(*marks) => {
                    fence.it.code.push_str(whole);
                    fence.it.code.push('\n');
                }
                Some(_) => document.fences.extend(open.take().map(|(_, fence)| fence)),
                None => match fence_marks(line) {
                    Some(marks) => {
                        let language = line[marks.len()..].trim().split([' ', ',']).next().unwrap_or_default();
                        let fence = Fence { language: language.to_owned(), code: String::new() };
                        open = Some((marks, At { line: index + 2, it: fence }));
                    }
                    None => document.read_line(index + 1, line),
                },
            }
        }
        document.fences.extend(open.map(|(_, fence)| fence));
        document
    }

    fn read_line(&mut self, line: usize, text: &str) {
        let heading = text.trim_start_matches('#');
        if (1..=6).contains(&(text.len() - heading.len())) && heading.starts_with(' ') {
            self.add_heading(heading);
        }
        let (spans, plain) = split_spans(text);
        self.spans.extend(spans.into_iter().map(|it| At { line, it }));
        for id in ["id=\"", "name=\""].iter().flat_map(|mark| after_each(&plain, mark)) {
            self.anchors.push(id.split('"').next().unwrap_or_default().to_owned());
        }
        // `[name]: target`; with `[^name]` it would be a footnote.
        let is_definition = plain.starts_with('[') && !plain.starts_with("[^");
        let definition = plain.split_once("]: ").filter(|_| is_definition);
        let targets = after_each(&plain, "](").chain(definition.map(|(_, target)| target));
        self.links.extend(targets.map(|target| At { line, it: link_target(target) }));
    }

    /// Of two headings alike, GitHub numbers the second.
    fn add_heading(&mut self, heading: &str) {
        let slug = slug(heading);
        let numbered = (1..).map(|number| format!("{slug}-{number}"));
        let free = std::iter::once(slug.clone()).chain(numbered).find(|anchor| !self.anchors.contains(anchor));
        self.anchors.extend(free);
    }
}

/// The marks that open a fenced block, if the line does.
fn fence_marks(line: &str) -> Option<&str> {
    let mark = line.chars().next().filter(|mark| "`~".contains(*mark))?;
    let marks = &line[..line.len() - line.trim_start_matches(mark).len()];
    // Backticks that close again on the same line are a span.
    let is_span = mark == '`' && line[marks.len()..].contains('`');
    (marks.len() >= 3 && !is_span).then_some(marks)
}

/// The code spans of a line, and the line without them.
fn split_spans(line: &str) -> (Vec<String>, String) {
    let (mut spans, mut plain, mut rest) = (Vec::new(), String::new(), line);
    while let Some(start) = rest.find('`') {
        plain.push_str(&rest[..start]);
        rest = &rest[start..];
        let marks = rest.len() - rest.trim_start_matches('`').len();
        let body = &rest[marks..];
        let Some(end) = body.find(&rest[..marks]) else { break };
        spans.push(body[..end].trim().to_owned());
        rest = &body[end + marks..];
    }
    plain.push_str(rest);
    (spans, plain)
}

fn after_each<'a>(text: &'a str, mark: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(mark).map(move |(at, _)| &text[at + mark.len()..])
}

/// The target at the start of `rest`, without its title.
fn link_target(rest: &str) -> String {
    let target = match rest.strip_prefix('<') {
        Some(quoted) => quoted.split('>').next(),
        None => rest.split([')', ' ']).next(),
    };
    target.unwrap_or_default().to_owned()
}

/// The anchor GitHub makes of a heading: letters, digits, `-` and `_` stay, blanks become `-`, the rest goes. Of a link
/// in a heading its text counts.
fn slug(heading: &str) -> String {
    let mut text = heading.trim().trim_end_matches('#').trim_end().to_owned();
    while let Some((start, end)) = text.find("](").and_then(|start| Some((start, start + text[start..].find(')')?))) {
        text.replace_range(start..=end, "");
    }
    let kept = text.chars().filter(|&character| character.is_alphanumeric() || "-_ ".contains(character));
    kept.flat_map(char::to_lowercase).map(|character| if character == ' ' { '-' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::{Document, slug};

    fn targets(text: &str) -> Vec<String> {
        Document::read(text).links.into_iter().map(|link| link.it).collect()
    }

    #[test]
    fn headings_become_anchors_as_on_github() {
        assert_eq!(slug(" 5. Promises: what's kept "), "5-promises-whats-kept");
        assert_eq!(slug("`Bus::publish` & [friends](x.md) #"), "buspublish--friends");
        let document = Document::read("# A\n## A\n#no heading\n```\n# code\n```\n<a id=\"b\"></a>\n");
        assert_eq!(document.anchors, ["a", "a-1", "b"]);
    }

    #[test]
    fn links_images_and_definitions_have_targets() {
        let text = "[a](b.md#c \"title\") ![d](<e f.png>) `[g](h)` [`i`](j)\n[k]: l.md\n[^1]: foot\n~~~\n[m](n)\n~~~\n";
        assert_eq!(targets(text), ["b.md#c", "e f.png", "j", "l.md"]);
    }

    #[test]
    fn spans_are_found_and_an_open_one_is_none() {
        let spans: Vec<_> = Document::read("a `b` ``c`d`` e\n`open\n").spans.into_iter().map(|at| at.it).collect();
        assert_eq!(spans, ["b", "c`d"]);
    }

    #[test]
    fn fences_have_their_language_and_line() {
        let fences = Document::read("x\n\n```sh title\na\n  b\n```\n````\n```\n````\n").fences;
        assert_eq!((fences[0].line, fences[0].it.language.as_str(), fences[0].it.code.as_str()), (4, "sh", "a\n  b\n"));
        assert_eq!(fences[1].it.code, "```\n");
    }
}
