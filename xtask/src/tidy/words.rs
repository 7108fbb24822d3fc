//! No text names a place that only one machine has, or a registry: where packages come from is the user's affair.

use super::Finding;
use crate::repo::Repo;

/// The first part of a path that is somebody's own.
const DIRS: [&str; 4] = ["work", "root", "home", "farm"];

/// Put together here, so that this file does not name them either.
const HOSTS: [&str; 4] = [
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("registry.npmjs", ".org"),
    concat!("deb.debian", ".org"),
];

/// Written by cargo, which records where each package came from.
const MAY_NAME_HOSTS: &str = "Cargo.lock";

pub(super) fn check(repo: &Repo) -> Vec<Finding> {
    let lines = repo.texts().flat_map(|(path, text)| text.lines().enumerate().map(move |at| (path, at)));
    lines.flat_map(|(path, (index, line))| check_line(path, index + 1, line)).collect()
}

fn check_line(path: &str, number: usize, line: &str) -> Vec<Finding> {
    let dirs = DIRS.iter().map(|dir| format!("/{dir}/")).filter(|dir| names_dir(line, dir));
    let dirs = dirs.map(|dir| Finding::at(path, number, format!("names a machine's own path, {dir}")));
    let hosts = HOSTS.iter().filter(|host| path != MAY_NAME_HOSTS && names_host(line, host));
    dirs.chain(hosts.map(|host| Finding::at(path, number, format!("names a registry, {host}")))).collect()
}

/// Whether `dir` begins a path somewhere in the line. After a name, `~`, a dot or something computed it goes on with one.
fn names_dir(line: &str, dir: &str) -> bool {
    line.match_indices(dir)
        .any(|(at, _)| !line[..at].ends_with(|before: char| before.is_alphanumeric() || "_-.~)}>*".contains(before)))
}

/// Whether the line has the host itself: `-index` after it is the name of a repository on another.
fn names_host(line: &str, host: &str) -> bool {
    line.match_indices(host).any(|(at, _)| {
        !line[at + host.len()..].starts_with(|after: char| after.is_alphanumeric() || "_-".contains(after))
    })
}

#[cfg(test)]
mod tests {
    use super::super::expect;
    use super::{DIRS, HOSTS, check};
    use crate::repo::Repo;

    #[test]
    fn a_machine_s_own_path_is_found() {
        let dir = DIRS[0];
        let text = format!("fine\nsee /{dir}/x and\nfile:///{dir}/y\n");
        expect(
            &check(&Repo::of(&[("a.sh", &text)])),
            &[
                &format!("a.sh:2: names a machine's own path, /{dir}/"),
                &format!("a.sh:3: names a machine's own path, /{dir}/"),
            ],
        );
    }

    #[test]
    fn a_relative_path_is_fine() {
        let texts = DIRS.map(|dir| format!("a/{dir}/b ../{dir}/b ~/{dir}/ ${{X}}/{dir}/ /{dir}"));
        expect(&check(&Repo::of(&[("a.sh", &texts.join("\n"))])), &[]);
    }

    #[test]
    fn a_registry_is_found_outside_of_the_lock_file() {
        let host = HOSTS[0];
        let text = format!("https://static.{host}/x\ngithub.com/rust-lang/{host}-index\n");
        expect(
            &check(&Repo::of(&[("a.md", &text), ("Cargo.lock", &text)])),
            &[&format!("a.md:1: names a registry, {host}")],
        );
    }
}
