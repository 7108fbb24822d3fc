//! The repository as the rules of `tidy` see it: names and texts, already read, so that a rule is a pure function.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::workspace::Workspace;

/// Every path is relative to the root of the repository, with `/` between its parts.
#[derive(Debug, Default)]
pub(crate) struct Repo {
    pub(crate) workspace: Workspace,
    paths: BTreeSet<String>,
    /// The contents of what is text.
    texts: BTreeMap<String, String>,
}

impl Repo {
    /// Reads what git tracks or would track, or every file where there is no git.
    pub(crate) fn read(workspace: Workspace, root: &Path) -> Result<Self, String> {
        let mut repo = Self { workspace, ..Self::default() };
        for path in list(root)? {
            // A file can be gone and still be in git's index.
            if root.join(&path).symlink_metadata().is_err() {
                continue;
            }
            let text = fs::read(root.join(&path)).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            if let Some(text) = text.filter(|text| !text.contains('\0')) {
                repo.texts.insert(path.clone(), text);
            }
            repo.paths.insert(path);
        }
        Ok(repo)
    }

    /// Whether there is such a file, or a directory with a file in it.
    pub(crate) fn exists(&self, path: &str) -> bool {
        let inside = format!("{path}/");
        let is_dir = || self.paths.range(inside.clone()..).next().is_some_and(|next| next.starts_with(&inside));
        path.is_empty() || self.paths.contains(path) || is_dir()
    }

    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }

    /// Every text with its path.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Every text whose path ends in `extension`.
    pub(crate) fn texts_of(&self, extension: &'static str) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(move |(path, _)| path.ends_with(extension))
    }

    pub(crate) fn files(&self) -> usize {
        self.paths.len()
    }

    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let texts: BTreeMap<_, _> = files.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())).collect();
        Self { workspace: Workspace::default(), paths: texts.keys().cloned().collect(), texts }
    }
}

/// The directory of a file.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// Where `relative` leads from the directory `dir`, or `None` when it leaves the repository.
pub(crate) fn resolve(dir: &str, relative: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in dir.split('/').chain(relative.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Files that git does not know yet are listed too, unless it ignores them: a rule speaks before the commit.
fn list(root: &Path) -> Result<Vec<String>, String> {
    let git = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .stdin(Stdio::null())
        .output();
    match git {
        Ok(output) if output.status.success() => {
            let names = String::from_utf8_lossy(&output.stdout);
            Ok(names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
        }
        _ => {
            let mut found = Vec::new();
            walk(root, "", &mut found).map_err(|error| format!("failed to list {}: {error}", root.display()))?;
            Ok(found)
        }
    }
}

fn walk(root: &Path, dir: &str, found: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(dir))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") };
        if !entry.file_type()?.is_dir() {
            found.push(path);
        } else if ![".git", "target", "node_modules", "__pycache__"].contains(&name.as_str()) {
            walk(root, &path, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Repo, resolve};

    #[test]
    fn a_relative_path_is_resolved_and_stays_inside() {
        assert_eq!(resolve("a/b", "../c/./d.rs").as_deref(), Some("a/c/d.rs"));
        assert_eq!(resolve("", "x/").as_deref(), Some("x"));
        assert_eq!(resolve("a", "../.."), None);
    }

    #[test]
    fn files_and_directories_exist() {
        let repo = Repo::of(&[("a/b.rs", ""), ("a.rs", "")]);
        assert!(["", "a", "a/b.rs", "a.rs"].iter().all(|path| repo.exists(path)));
        assert!(!["b", "a/b", "a/b.rs/c"].iter().any(|path| repo.exists(path)));
    }
}
