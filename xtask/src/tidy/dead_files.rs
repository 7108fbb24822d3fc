//! Every Rust file is compiled: it is the root of a target, or a file that is compiled takes it in.

use std::collections::BTreeSet;

use super::Finding;
use crate::repo::{Repo, parent, resolve};
use crate::source::{Module, Outline};

pub(super) fn check(repo: &Repo) -> Vec<Finding> {
    let live = live(repo);
    let strangers = strangers(repo);
    let mut findings: Vec<Finding> =
        strangers.iter().map(|dir| Finding::new(&manifest(dir), "is no member of the workspace")).collect();
    let dead = repo.texts_of(".rs").filter(|(path, _)| {
        let owner = owner(repo, path);
        !live.contains(*path) && !strangers.contains(owner) && !is_another_workspace(repo, owner)
    });
    findings.extend(dead.map(|(path, _)| Finding::new(path, "is a dead file: no target and no `mod` leads to it")));
    findings
}

/// The files that a walk from the roots of all targets comes by.
fn live(repo: &Repo) -> BTreeSet<String> {
    let targets = repo.workspace.packages.iter().flat_map(|package| &package.targets);
    let mut open: Vec<(String, bool)> = targets.map(|target| (target.root.clone(), true)).collect();
    let mut live = BTreeSet::new();
    while let Some((path, is_root)) = open.pop() {
        let Some(text) = repo.text(&path) else { continue };
        if !live.insert(path.clone()) {
            continue;
        }
        let outline = Outline::read(text);
        let included = outline.includes.iter().filter_map(|included| resolve(parent(&path), included));
        open.extend(included.map(|included| (included, true)));
        for module in &outline.modules {
            let candidates = candidates(&path, is_root, module);
            open.extend(candidates.into_iter().map(|candidate| (candidate, module.path.is_some())));
        }
    }
    live
}

/// Where rustc looks for a module that the file `path` names. A root, like a `mod.rs`, has its modules beside it, any
/// other file in a directory of its own name.
fn candidates(path: &str, is_root: bool, module: &Module) -> Vec<String> {
    let beside = is_root || path.ends_with("/mod.rs");
    let own = if beside { parent(path) } else { path.trim_end_matches(".rs") };
    let dir = format!("{own}/{}", module.inside.join("/"));
    let name = &module.name;
    match &module.path {
        Some(file) if module.inside.is_empty() => resolve(parent(path), file).into_iter().collect(),
        Some(file) => resolve(&dir, file).into_iter().collect(),
        None => {
            [format!("{name}.rs"), format!("{name}/mod.rs")].iter().filter_map(|file| resolve(&dir, file)).collect()
        }
    }
}

/// Packages that the workspace forgot. One that is a workspace of its own stands outside on purpose, as fuzz targets do.
fn strangers(repo: &Repo) -> BTreeSet<&str> {
    let manifests = repo.texts_of("Cargo.toml").map(|(path, _)| parent(path));
    manifests.filter(|dir| !dir.is_empty() && !is_member(repo, dir) && !is_another_workspace(repo, dir)).collect()
}

fn is_member(repo: &Repo, dir: &str) -> bool {
    repo.workspace.packages.iter().any(|package| package.dir == dir)
}

fn is_another_workspace(repo: &Repo, dir: &str) -> bool {
    let declares = |text: &str| text.lines().any(|line| line.trim() == "[workspace]");
    !dir.is_empty() && repo.text(&manifest(dir)).is_some_and(declares)
}

/// The directory of the package that a file belongs to.
fn owner<'a>(repo: &Repo, path: &'a str) -> &'a str {
    let mut dir = parent(path);
    while !dir.is_empty() && repo.text(&manifest(dir)).is_none() {
        dir = parent(dir);
    }
    dir
}

fn manifest(dir: &str) -> String {
    if dir.is_empty() { "Cargo.toml".to_owned() } else { format!("{dir}/Cargo.toml") }
}

#[cfg(test)]
mod tests {
    use super::super::expect;
    use super::check;
    use crate::repo::Repo;
    use crate::workspace::{Package, Target};

    fn repo(files: &[(&str, &str)], roots: &[&str]) -> Repo {
        let mut repo = Repo::of(files);
        let target = |root: &&str| Target { root: (*root).to_owned(), ..Target::default() };
        let targets = roots.iter().map(target).collect();
        let package = Package { dir: "a".into(), targets, ..Package::default() };
        repo.workspace.packages.push(package);
        repo
    }

    #[test]
    fn what_modules_lead_to_is_live() {
        let files = [
            ("a/Cargo.toml", ""),
            ("a/src/lib.rs", "mod b; mod c { mod d; } #[path = \"other/e.rs\"] mod e; include!(\"i.rs\");"),
            ("a/src/b.rs", "mod f;"),
            ("a/src/b/f.rs", ""),
            ("a/src/c/d/mod.rs", "mod g;"),
            ("a/src/c/d/g.rs", ""),
            ("a/src/other/e.rs", "mod h;"),
            ("a/src/other/h.rs", ""),
            ("a/src/i.rs", ""),
            ("a/tests/it.rs", "mod help;"),
            ("a/tests/help/mod.rs", ""),
        ];
        expect(&check(&repo(&files, &["a/src/lib.rs", "a/tests/it.rs"])), &[]);
    }

    #[test]
    fn what_nothing_leads_to_is_dead() {
        let files =
            [("a/Cargo.toml", ""), ("a/src/lib.rs", "// mod b;"), ("a/src/b.rs", "mod c;"), ("a/src/b/c.rs", "")];
        expect(
            &check(&repo(&files, &["a/src/lib.rs"])),
            &[
                "a/src/b.rs: is a dead file: no target and no `mod` leads to it",
                "a/src/b/c.rs: is a dead file: no target and no `mod` leads to it",
            ],
        );
    }

    #[test]
    fn a_forgotten_package_is_named_once_and_another_workspace_is_left_alone() {
        let files = [
            ("a/Cargo.toml", ""),
            ("b/Cargo.toml", "[package]\n"),
            ("b/src/lib.rs", ""),
            ("fuzz/Cargo.toml", "[workspace]\n"),
            ("fuzz/targets/x.rs", ""),
        ];
        expect(&check(&repo(&files, &[])), &["b/Cargo.toml: is no member of the workspace"]);
    }
}
