//! Links between the documents lead to files and headings that exist.

use super::Finding;
use crate::markdown::Document;
use crate::repo::{Repo, parent, resolve};

pub(super) fn check(repo: &Repo) -> Vec<Finding> {
    repo.texts_of(".md").flat_map(|(path, text)| check_document(repo, path, &Document::read(text))).collect()
}

fn check_document(repo: &Repo, path: &str, document: &Document) -> Vec<Finding> {
    let broken = document.links.iter().filter_map(|link| {
        let wrong = wrong(repo, path, document, &link.it)?;
        Some(Finding::at(path, link.line, wrong))
    });
    broken.collect()
}

/// What is wrong with a link, if something is. Links to other sites are not followed.
fn wrong(repo: &Repo, path: &str, document: &Document, target: &str) -> Option<String> {
    let is_elsewhere = target.starts_with("//") || target.split(['/', '#']).next()?.contains(':');
    if target.is_empty() || is_elsewhere {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    // A link that begins with a slash starts at the root of the repository.
    let dir = if file.starts_with('/') { "" } else { parent(path) };
    let found = if file.is_empty() { Some(path.to_owned()) } else { resolve(dir, file) };
    let Some(found) = found.filter(|found| repo.exists(found)) else {
        return Some(format!("the link `{target}` leads to no file"));
    };
    let has = |document: &Document| document.anchors.iter().any(|known| known == anchor);
    let misses = match repo.text(&found).filter(|_| found.ends_with(".md") && !anchor.is_empty()) {
        Some(_) if found == path => !has(document),
        Some(text) => !has(&Document::read(text)),
        None => false,
    };
    misses.then(|| format!("the link `{target}` leads to no heading of {found}"))
}

#[cfg(test)]
mod tests {
    use super::super::expect;
    use super::check;
    use crate::repo::Repo;

    #[test]
    fn links_that_lead_somewhere_are_fine() {
        let repo = Repo::of(&[
            ("README.md", "# A b\n[1](docs/X.md) [2](docs/X.md#c) [3](#a-b) [4](docs) [5](https://x.example/y#z)\n"),
            ("docs/X.md", "# C\n[1](../README.md#a-b) [2](/src/lib.rs#L10) [3](mailto:a@b)\n"),
            ("src/lib.rs", ""),
        ]);
        expect(&check(&repo), &[]);
    }

    #[test]
    fn links_that_lead_nowhere_are_named() {
        let repo = Repo::of(&[
            ("README.md", "[1](docs/Y.md)\n\n[2](docs/X.md#c) [3](#d) [4](../x)\n"),
            ("docs/X.md", "# B\n"),
        ]);
        expect(
            &check(&repo),
            &[
                "README.md:1: the link `docs/Y.md` leads to no file",
                "README.md:3: the link `docs/X.md#c` leads to no heading of docs/X.md",
                "README.md:3: the link `#d` leads to no heading of README.md",
                "README.md:3: the link `../x` leads to no file",
            ],
        );
    }
}
