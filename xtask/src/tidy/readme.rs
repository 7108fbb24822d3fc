//! The commands in README.md's `sh` blocks exist: cargo's verbs, the packages and targets they name, our own verbs and
//! scripts. Flags are not looked at, nor programs from elsewhere.

use super::Finding;
use crate::VERBS;
use crate::check::TEST;
use crate::markdown::Document;
use crate::repo::{Repo, resolve};
use crate::shell::{self, Invocation};
use crate::workspace::Package;

const README: &str = "README.md";

const CARGO_VERBS: [&str; 15] = [
    "add", "bench", "build", "check", "clean", "clippy", "doc", "fetch", "fmt", "init", "install", "new", "run",
    "test", "update",
];

/// Interpreters, whose first argument is a script.
const INTERPRETERS: [&str; 5] = ["bash", "node", "python", "python3", "sh"];

pub(super) fn check(repo: &Repo) -> Vec<Finding> {
    let Some(text) = repo.text(README) else {
        return vec![Finding::new(README, "does not exist, and a reader starts there")];
    };
    let mut findings = Vec::new();
    let mut tests = false;
    for block in Document::read(text).fences.iter().filter(|fence| fence.it.language == "sh") {
        for command in shell::commands(&block.it.code) {
            tests |= command.words.join(" ") == TEST;
            let wrong = wrong(repo, &command).into_iter();
            findings.extend(wrong.map(|says| Finding::at(README, block.line + command.line, says)));
        }
    }
    if !tests {
        findings.push(Finding::new(README, format!("no `sh` block has the test command of CI, `{TEST}`")));
    }
    findings
}

fn wrong(repo: &Repo, command: &Invocation) -> Vec<String> {
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    match words[..] {
        ["cargo", ref arguments @ ..] => wrong_cargo(repo, arguments),
        [interpreter, script, ..] if INTERPRETERS.contains(&interpreter) => missing(repo, script).into_iter().collect(),
        [script, ..] if script.contains('/') => missing(repo, script).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// A script that is not here. What is absolute, computed, a flag, or built by cargo is not looked for.
fn missing(repo: &Repo, script: &str) -> Option<String> {
    let skip = ["/", "~", "-", "target/", "./target/"].iter().any(|start| script.starts_with(start));
    let found = || resolve("", script).is_some_and(|path| repo.exists(&path));
    (!skip && !script.contains('$') && !found()).then(|| format!("there is no `{script}`"))
}

fn wrong_cargo(repo: &Repo, arguments: &[&str]) -> Vec<String> {
    let mut rest = arguments.iter().skip_while(|argument| argument.starts_with(['+', '-']));
    match rest.next() {
        None => Vec::new(),
        Some(&"xtask") => {
            let unknown = rest.next().filter(|verb| !VERBS.iter().any(|(known, _)| known == *verb));
            unknown.map(|verb| format!("cargo xtask has no verb `{verb}`")).into_iter().collect()
        }
        Some(verb) if !CARGO_VERBS.contains(verb) => vec![format!("cargo has no verb `{verb}`")],
        Some(_) => wrong_names(repo, &rest.copied().take_while(|argument| *argument != "--").collect::<Vec<_>>()),
    }
}

/// The packages, targets and paths named in a cargo command's arguments that are not here.
fn wrong_names(repo: &Repo, arguments: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    let named = values(arguments, &["-p", "--package"]);
    for name in &named {
        if !repo.workspace.packages.iter().any(|package| package.name == *name) {
            wrong.push(format!("there is no package `{name}`"));
        }
    }
    let all = arguments.contains(&"--workspace");
    let selects = |package: &&Package| {
        if named.is_empty() { all || package.by_default } else { named.contains(&package.name.as_str()) }
    };
    for (flag, kind) in [("--example", "example"), ("--bin", "bin"), ("--test", "test"), ("--bench", "bench")] {
        for name in values(arguments, &[flag]) {
            let mut targets = repo.workspace.packages.iter().filter(selects).flat_map(|package| &package.targets);
            if !targets.any(|target| target.kind == kind && target.name == name) {
                wrong.push(format!("there is no {kind} `{name}` where the command looks for it"));
            }
        }
    }
    wrong.extend(values(arguments, &["--path", "--manifest-path"]).iter().filter_map(|path| missing(repo, path)));
    wrong
}

/// What follows any of the flags, as the next word or after `=`.
fn values<'a>(arguments: &[&'a str], flags: &[&str]) -> Vec<&'a str> {
    let next = arguments.windows(2).filter(|pair| flags.contains(&pair[0])).map(|pair| pair[1]);
    let same = arguments.iter().filter_map(|argument| argument.split_once('='));
    next.chain(same.filter(|(flag, _)| flags.contains(flag)).map(|(_, value)| value)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::expect;
    use super::check;
    use crate::repo::Repo;
    use crate::workspace::{Package, Target};

    fn repo(commands: &str) -> Repo {
        let readme = format!("# edri\n\n```sh\ncargo test\n{commands}\n```\n");
        let mut repo = Repo::of(&[("README.md", &readme), ("scripts/x.py", ""), (".ci/run", "")]);
        for (name, kind, by_default) in [("examples", "example", true), ("bench", "bench", false)] {
            let targets = vec![Target { name: "quakes".into(), kind: kind.into(), ..Target::default() }];
            let package = Package { name: format!("edri-{name}"), by_default, targets, ..Package::default() };
            repo.workspace.packages.push(package);
        }
        repo
    }

    #[test]
    fn commands_that_exist_are_fine() {
        let commands = "
            cargo run --release --example quakes -- --example gone
            RUST_LOG=info cargo run -p edri-examples --example=quakes
            cargo bench -p edri-bench --bench quakes
            cargo +stable xtask check
            python3 scripts/x.py; .ci/run && curl -s localhost:1/x/y && ./target/release/edri run
            python3 -m http.server
        ";
        expect(&check(&repo(commands)), &[]);
    }

    #[test]
    fn commands_that_do_not_exist_are_named() {
        let commands = "cargo run --example gone\ncargo bench --bench quakes\ncargo xtask fly\ncargo fly\n\
            cargo test -p gone\npython3 scripts/y.py\n./y";
        expect(
            &check(&repo(commands)),
            &[
                "README.md:5: there is no example `gone` where the command looks for it",
                "README.md:6: there is no bench `quakes` where the command looks for it",
                "README.md:7: cargo xtask has no verb `fly`",
                "README.md:8: cargo has no verb `fly`",
                "README.md:9: there is no package `gone`",
                "README.md:10: there is no `scripts/y.py`",
                "README.md:11: there is no `./y`",
            ],
        );
    }

    #[test]
    fn the_readme_names_the_test_command_of_ci() {
        let repo = Repo::of(&[("README.md", "```sh\ncargo test --all\n```\n")]);
        expect(&check(&repo), &["README.md: no `sh` block has the test command of CI, `cargo test`"]);
        expect(&check(&Repo::default()), &["README.md: does not exist, and a reader starts there"]);
    }
}
