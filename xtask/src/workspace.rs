//! The packages of the workspace and what they build, as cargo tells it.

use std::process::{Command, Stdio};

use crate::check::program;
use crate::json::Json;

/// The workspace around the current directory. Every path in it is relative to its root.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    pub(crate) packages: Vec<Package>,
}

#[derive(Debug, Default)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Where its manifest is.
    pub(crate) dir: String,
    /// Whether a command without `--package` means this one too.
    pub(crate) by_default: bool,
    pub(crate) targets: Vec<Target>,
    /// The packages of this repository that it uses.
    pub(crate) uses: Vec<Use>,
}

#[derive(Debug, Default)]
pub(crate) struct Target {
    pub(crate) name: String,
    /// What cargo calls its kind: `bin`, `example`, `test`, `bench`, `custom-build`, and several for a library.
    pub(crate) kind: String,
    /// The file that rustc is given.
    pub(crate) root: String,
}

#[derive(Debug)]
pub(crate) struct Use {
    pub(crate) dir: String,
    /// Whether only tests, examples and benches use it.
    pub(crate) dev: bool,
}

impl Target {
    pub(crate) fn is_library(&self) -> bool {
        ["lib", "rlib", "dylib", "cdylib", "staticlib", "proc-macro"].contains(&self.kind.as_str())
    }
}

impl Workspace {
    /// Asks cargo; also says where the workspace's root is. Dependencies are not resolved, so no network is needed.
    pub(crate) fn load() -> Result<(Self, String), String> {
        let output = Command::new(program())
            .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("failed to start cargo metadata: {error}"))?;
        if !output.status.success() {
            return Err(format!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        Self::parse(&String::from_utf8_lossy(&output.stdout))
            .ok_or_else(|| "cargo metadata printed what this program does not understand".to_owned())
    }

    fn parse(metadata: &str) -> Option<(Self, String)> {
        let json = Json::parse(metadata)?;
        let root = json.get("workspace_root")?.text()?;
        let defaults = json.get("workspace_default_members")?.list()?;
        let packages = json.get("packages")?.list()?;
        let packages = packages.iter().map(|package| parse_package(package, root, defaults)).collect::<Option<_>>()?;
        Some((Self { packages }, root.to_owned()))
    }
}

fn parse_package(package: &Json, root: &str, defaults: &[Json]) -> Option<Package> {
    let manifest = inside(root, package.get("manifest_path")?.text()?)?;
    let targets = package.get("targets")?.list()?;
    let dependencies = package.get("dependencies")?.list()?;
    Some(Package {
        name: package.get("name")?.text()?.to_owned(),
        dir: manifest.rsplit_once('/').map_or("", |(dir, _)| dir).to_owned(),
        by_default: defaults.contains(package.get("id")?),
        targets: targets.iter().map(|target| parse_target(target, root)).collect::<Option<_>>()?,
        uses: dependencies.iter().filter_map(|dependency| parse_use(dependency, root)).collect(),
    })
}

fn parse_target(target: &Json, root: &str) -> Option<Target> {
    Some(Target {
        name: target.get("name")?.text()?.to_owned(),
        kind: target.get("kind")?.list()?.first()?.text()?.to_owned(),
        root: inside(root, target.get("src_path")?.text()?)?,
    })
}

/// `None` for a dependency from elsewhere: those have no path.
fn parse_use(dependency: &Json, root: &str) -> Option<Use> {
    let dir = inside(root, dependency.get("path")?.text()?)?;
    let kind = dependency.get("kind").and_then(Json::text);
    Some(Use { dir, dev: kind == Some("dev") })
}

fn inside(root: &str, path: &str) -> Option<String> {
    path.strip_prefix(root).map(|path| path.trim_start_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::Workspace;

    #[test]
    fn packages_targets_and_their_own_dependencies_are_read() {
        let metadata = r#"{
            "workspace_root": "/r", "workspace_members": ["id-a", "id-b"], "workspace_default_members": ["id-a"],
            "packages": [
                {"name": "edri-a", "id": "id-a", "manifest_path": "/r/a/Cargo.toml",
                 "targets": [{"kind": ["proc-macro"], "name": "edri_a", "src_path": "/r/a/src/lib.rs"}],
                 "dependencies": [
                     {"name": "bytes", "kind": null},
                     {"name": "edri-b", "kind": "dev", "path": "/r/b"}]},
                {"name": "edri-b", "id": "id-b", "manifest_path": "/r/b/Cargo.toml", "targets": [], "dependencies": []}
            ]}"#;
        let (workspace, root) = Workspace::parse(metadata).unwrap();
        let [a, b] = &workspace.packages[..] else { panic!("two packages: {workspace:?}") };
        assert_eq!((root.as_str(), a.dir.as_str(), a.by_default, b.by_default), ("/r", "a", true, false));
        assert!(a.targets[0].is_library());
        assert_eq!(a.targets[0].root, "a/src/lib.rs");
        assert_eq!(a.uses.len(), 1);
        assert!(a.uses[0].dev && a.uses[0].dir == "b");
    }
}
