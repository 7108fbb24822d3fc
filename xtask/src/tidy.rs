//! What the compiler does not see. Each rule is a pure function from the repository to what is wrong with it.

mod dead_files;
mod layers;
mod links;
mod promises;
mod readme;
mod shape;
mod words;

use std::fmt;
use std::path::Path;

use crate::repo::Repo;
use crate::workspace::Workspace;

const RULES: [fn(&Repo) -> Vec<Finding>; 7] =
    [dead_files::check, layers::check, links::check, promises::check, readme::check, shape::check, words::check];

/// Something a rule has to say.
#[derive(Debug, PartialEq)]
struct Finding {
    path: String,
    line: Option<usize>,
    says: String,
    /// A warning is printed and fails nothing.
    warning: bool,
}

impl Finding {
    fn new(path: &str, says: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: None, says: says.into(), warning: false }
    }

    fn at(path: &str, line: usize, says: impl Into<String>) -> Self {
        Self { line: Some(line), ..Self::new(path, says) }
    }

    fn warning(path: &str, says: impl Into<String>) -> Self {
        Self { warning: true, ..Self::new(path, says) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        let severity = if self.warning { "warning: " } else { "" };
        write!(formatter, "{}{line}: {severity}{}", self.path, self.says)
    }
}

/// Prints what every rule found; fails when there is more than warnings.
pub(crate) fn run() -> Result<(), String> {
    let (workspace, root) = Workspace::load()?;
    let repo = Repo::read(workspace, Path::new(&root))?;
    let findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&repo)).collect();
    for finding in &findings {
        println!("{finding}");
    }
    let warnings = findings.iter().filter(|finding| finding.warning).count();
    let faults = findings.len() - warnings;
    let counts = format!("{faults} faults and {warnings} warnings in {} files", repo.files());
    if faults > 0 {
        return Err(format!("tidy found {counts}"));
    }
    println!("tidy found {counts}");
    Ok(())
}

#[cfg(test)]
#[track_caller]
fn expect(findings: &[Finding], expected: &[&str]) {
    let found: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(found, expected);
}
