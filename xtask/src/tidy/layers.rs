//! The crates use each other in one direction, and their libraries open with what they are for.

use super::Finding;
use crate::repo::Repo;
use crate::workspace::{Package, Use};

/// What a crate may use, by directory.
enum May {
    Use(&'static [&'static str]),
    /// Everything that something may use at all.
    UseAll,
}

/// Every crate has its line here: a new one has to find its place first.
const LAYERS: [(&str, May); 17] = [
    ("events/macros", May::Use(&[])),
    ("events", May::Use(&["events/macros"])),
    ("protocol", May::Use(&["events"])),
    ("router", May::Use(&["events"])),
    ("workers", May::Use(&["events", "protocol", "router"])),
    ("managers", May::Use(&["events", "router", "workers"])),
    ("managers/scheduler", May::Use(&["events", "router", "workers", "managers", "managers/store"])),
    ("managers/store", May::Use(&["events", "router", "workers", "managers"])),
    ("connector", May::Use(&["events", "protocol", "router"])),
    ("api", May::Use(&["events", "protocol", "router", "workers", "managers"])),
    ("client", May::Use(&["events", "protocol", "router", "workers"])),
    ("edri", May::UseAll),
    ("edri/command", May::Use(&["edri"])),
    ("examples", May::UseAll),
    ("tests", May::UseAll),
    ("bench", May::UseAll),
    ("xtask", May::Use(&[])),
];

/// The crates at the top, and who alone may use the one below them.
const NOBODY_USES: [&str; 5] = ["edri/command", "examples", "tests", "bench", "xtask"];
const USE_EDRI: [&str; 4] = ["edri/command", "examples", "tests", "bench"];

/// Cargo allows a circle through dev-dependencies; this one compiles the examples in the macros' documentation.
const CIRCLES: [(&str, &str); 1] = [("events/macros", "events")];

pub(super) fn check(repo: &Repo) -> Vec<Finding> {
    repo.workspace.packages.iter().flat_map(|package| check_uses(package).chain(check_opening(repo, package))).collect()
}

fn check_uses(package: &Package) -> impl Iterator<Item = Finding> {
    let manifest = format!("{}/Cargo.toml", package.dir);
    let may = LAYERS.iter().find(|(dir, _)| *dir == package.dir).map(|(_, may)| may);
    let homeless = may.is_none().then(|| {
        Finding::new(&manifest, format!("{} has no place in the layers of xtask/src/tidy/layers.rs", package.name))
    });
    let wrong = package.uses.iter().filter(move |used| may.is_some_and(|may| !allows(&package.dir, may, used)));
    let wrong = wrong.map(move |used| Finding::new(&manifest, format!("{} may not use {}", package.dir, used.dir)));
    homeless.into_iter().chain(wrong)
}

fn allows(dir: &str, may: &May, used: &Use) -> bool {
    let used_dir = used.dir.as_str();
    match may {
        _ if used.dev && CIRCLES.contains(&(dir, used_dir)) => true,
        May::Use(dirs) => dirs.contains(&used_dir),
        May::UseAll if used_dir == "edri" => USE_EDRI.contains(&dir),
        May::UseAll => !NOBODY_USES.contains(&used_dir),
    }
}

fn check_opening(repo: &Repo, package: &Package) -> Option<Finding> {
    let library = package.targets.iter().find(|target| target.is_library())?;
    let opens = repo.text(&library.root)?.starts_with("//!");
    (!opens).then(|| Finding::at(&library.root, 1, "a library opens with `//!`: what it is for and what it promises"))
}

#[cfg(test)]
mod tests {
    use super::super::expect;
    use super::check;
    use crate::repo::Repo;
    use crate::workspace::{Package, Target, Use};

    fn findings(dir: &str, uses: &[(&str, bool)]) -> Vec<super::Finding> {
        let uses = uses.iter().map(|&(dir, dev)| Use { dir: dir.to_owned(), dev }).collect();
        let mut repo = Repo::default();
        let package = Package { name: format!("edri-{dir}"), dir: dir.to_owned(), uses, ..Package::default() };
        repo.workspace.packages.push(package);
        check(&repo)
    }

    #[test]
    fn a_crate_uses_those_below_it() {
        expect(&findings("managers", &[("workers", false), ("router", false), ("events", true)]), &[]);
        expect(&findings("edri", &[("managers", false), ("events/macros", false)]), &[]);
        expect(&findings("tests", &[("edri", false), ("router", true)]), &[]);
        expect(&findings("events/macros", &[("events", true)]), &[]);
    }

    #[test]
    fn a_crate_does_not_use_those_above_it() {
        expect(&findings("router", &[("workers", false)]), &["router/Cargo.toml: router may not use workers"]);
        expect(&findings("router", &[("workers", true)]), &["router/Cargo.toml: router may not use workers"]);
        expect(&findings("workers", &[("edri", true)]), &["workers/Cargo.toml: workers may not use edri"]);
        expect(&findings("edri", &[("tests", false)]), &["edri/Cargo.toml: edri may not use tests"]);
        expect(
            &findings("events/macros", &[("events", false)]),
            &["events/macros/Cargo.toml: events/macros may not use events"],
        );
    }

    #[test]
    fn a_new_crate_has_to_find_its_place() {
        expect(
            &findings("cellar", &[("events", false)]),
            &["cellar/Cargo.toml: edri-cellar has no place in the layers of xtask/src/tidy/layers.rs"],
        );
    }

    #[test]
    fn a_library_opens_with_what_it_is_for() {
        let mut repo = Repo::of(&[("router/src/lib.rs", "mod a;\n")]);
        let root = "router/src/lib.rs".to_owned();
        let targets = vec![Target { kind: "lib".into(), root, ..Target::default() }];
        repo.workspace.packages.push(Package { dir: "router".into(), targets, ..Package::default() });
        expect(
            &check(&repo),
            &["router/src/lib.rs:1: a library opens with `//!`: what it is for and what it promises"],
        );
    }
}
