//! The Python that both sides of the Python cases run on: one that has `msgpack`, and the SDK of this source tree.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// Its path, or why there is none.
static INTERPRETER: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    const ENVIRONMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sdk/python/environment.py");
    const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python");
    let made = Command::new("python3").args([ENVIRONMENT, DIRECTORY]).output();
    let made = made.map_err(|error| format!("there is no `python3`: {error}"))?;
    if made.status.success() {
        return Ok(PathBuf::from(String::from_utf8_lossy(&made.stdout).trim()));
    }
    Err(String::from_utf8_lossy(&made.stderr).trim().to_owned())
});

pub(super) fn interpreter() -> crate::Result<&'static Path> {
    INTERPRETER.as_deref().map_err(|why| why.as_str().into())
}

/// Why nothing can be measured with Python, if so.
pub(super) fn missing() -> Option<String> {
    INTERPRETER.as_ref().err().cloned()
}

/// One of the programs of this suite.
pub(super) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name)
}
