//! A promise in the documents that names its test has one: what stands there in the form `module::test_name` is a test.

use super::Finding;
use crate::markdown::Document;
use crate::repo::Repo;
use crate::source::Outline;

const PROMISES: &str = "docs/SEMANTICS.md";

pub(super) fn check(repo: &Repo) -> Vec<Finding> {
    let Some(text) = repo.text(PROMISES) else {
        return vec![Finding::new(PROMISES, "does not exist, and the promises should stand there")];
    };
    let outlines: Vec<(&str, Outline)> = repo.texts_of(".rs").map(|(path, text)| (path, Outline::read(text))).collect();
    let spans = Document::read(text).spans.into_iter().filter(|span| has_the_form(&span.it));
    let missing = spans.filter(|span| !outlines.iter().any(|(path, outline)| holds(path, outline, &span.it)));
    missing.map(|span| Finding::at(PROMISES, span.line, format!("there is no test `{}`", span.it))).collect()
}

/// Two or more names in lower case. `Bus::publish` is no test, and neither is what the standard library has.
fn has_the_form(span: &str) -> bool {
    let is_name = |part: &str| {
        part.starts_with(|first: char| first == '_' || first.is_ascii_lowercase())
            && part
                .chars()
                .all(|character| character == '_' || character.is_ascii_lowercase() || character.is_ascii_digit())
    };
    span.contains("::") && !span.starts_with("std::") && span.split("::").all(is_name)
}

/// Whether the file has the test, and is or holds the module named in front of it.
fn holds(path: &str, outline: &Outline, span: &str) -> bool {
    let mut parts = span.rsplit("::");
    let (Some(test), Some(module)) = (parts.next(), parts.next()) else { return false };
    let in_path = || path.trim_end_matches(".rs").split('/').any(|part| part.replace('-', "_") == module);
    let inside = || outline.inline.iter().any(|inline| inline == module);
    outline.tests.iter().any(|name| name == test) && (in_path() || inside())
}

#[cfg(test)]
mod tests {
    use super::super::expect;
    use super::check;
    use crate::repo::Repo;

    const SOURCES: [(&str, &str); 2] = [
        ("tests/src/delivery.rs", "#[tokio::test] async fn arrives_once() {} fn helper() {}"),
        ("router/src/table.rs", "mod tests { #[test] fn keeps_order() {} }"),
    ];

    fn repo(semantics: &str) -> Repo {
        Repo::of(&[SOURCES[0], SOURCES[1], ("docs/SEMANTICS.md", semantics)])
    }

    #[test]
    fn named_tests_exist() {
        expect(
            &check(&repo("`delivery::arrives_once`, `router::table::tests::keeps_order`, `table::keeps_order`")),
            &[],
        );
        expect(&check(&repo("`Bus::publish`, `std::mem::drop`, `a_word`, `a::B`, `x :: y`")), &[]);
    }

    #[test]
    fn a_name_without_a_test_is_found() {
        expect(
            &check(&repo("1\n`delivery::helper` `table::arrives_once`\n`gone::gone`")),
            &[
                "docs/SEMANTICS.md:2: there is no test `delivery::helper`",
                "docs/SEMANTICS.md:2: there is no test `table::arrives_once`",
                "docs/SEMANTICS.md:3: there is no test `gone::gone`",
            ],
        );
    }

    #[test]
    fn promises_have_a_page() {
        let says = "docs/SEMANTICS.md: does not exist, and the promises should stand there";
        expect(&check(&Repo::default()), &[says]);
    }
}
