//! A Rust file fits a sitting and ends with a line end.

use super::Finding;
use crate::repo::Repo;

const LINES_MAX: usize = 1000;
const LINES_WARN: usize = 700;
const _: () = assert!(LINES_WARN < LINES_MAX);

pub(super) fn check(repo: &Repo) -> Vec<Finding> {
    repo.texts_of(".rs")
        .flat_map(|(path, text)| check_end(path, text).into_iter().chain(check_size(path, text)))
        .collect()
}

fn check_end(path: &str, text: &str) -> Option<Finding> {
    let ends = text.is_empty() || text.ends_with('\n');
    (!ends).then(|| Finding::new(path, "does not end with a line end"))
}

fn check_size(path: &str, text: &str) -> Option<Finding> {
    match text.lines().count() {
        lines if lines > LINES_MAX => Some(Finding::new(path, format!("has {lines} lines, more than {LINES_MAX}"))),
        lines if lines >= LINES_WARN => Some(Finding::warning(path, format!("has {lines} lines, time to split it"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::expect;
    use super::check;
    use crate::repo::Repo;

    fn findings(lines: usize) -> Vec<super::Finding> {
        check(&Repo::of(&[("a.rs", &"\n".repeat(lines)), ("a.md", "x")]))
    }

    #[test]
    fn a_file_has_a_thousand_lines_at_most() {
        expect(&findings(699), &[]);
        expect(&findings(1000), &["a.rs: warning: has 1000 lines, time to split it"]);
        expect(&findings(1001), &["a.rs: has 1001 lines, more than 1000"]);
    }

    #[test]
    fn a_file_ends_with_a_line_end() {
        expect(&check(&Repo::of(&[("a.rs", "x")])), &["a.rs: does not end with a line end"]);
        expect(&check(&Repo::of(&[("a.rs", "")])), &[]);
    }
}
