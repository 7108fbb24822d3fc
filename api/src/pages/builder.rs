//! How pages are configured, and the templates of a folder.

use std::fs;
use std::path::{Path, PathBuf};

/// The most templates in a folder of pages.
const TEMPLATES_MAX: usize = 10_000;
/// What a page may load and do in a browser, unless it is told otherwise.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'; \
                      frame-ancestors 'self'";

/// The pages of a gateway: templates in the language of [Jinja](https://docs.rs/minijinja/latest/minijinja/syntax/), in a folder.
///
/// An event that says `page = "tickets.html"` is answered with that template to whoever prefers `text/html`, and with data to others.
#[derive(Debug, Clone)]
#[must_use = "pages are shown by a gateway: give them to `Api::pages`"]
pub struct Pages {
    pub(super) folder: PathBuf,
    pub(super) assets: Option<PathBuf>,
    pub(super) plain: Vec<(String, String)>,
    pub(super) develop: bool,
    pub(super) policy: String,
}

impl Pages {
    /// The templates of this folder and those below it.
    pub fn folder(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            assets: None,
            plain: Vec::new(),
            develop: cfg!(debug_assertions),
            policy: POLICY.to_owned(),
        }
    }

    /// Serves the files of this folder at `/assets/`, and lets templates say `asset("style.css")`: a path with a hash of the file in
    /// it, which browsers keep for good. Anybody may read them.
    pub fn assets(mut self, folder: impl Into<PathBuf>) -> Self {
        self.assets = Some(folder.into());
        self
    }

    /// Shows this template to whoever asks for this path with GET, where no event has that route: `page("/about", "about.html")`.
    /// Anybody may see it; `caller` and `may` in the template say who it is.
    pub fn page(mut self, path: impl Into<String>, template: impl Into<String>) -> Self {
        self.plain.push((path.into(), template.into()));
        self
    }

    /// Whether templates and assets are read again every time, and what is wrong with one is shown in the browser. Unless it is said, so
    /// it is in a program that is built without `--release`. Otherwise they are read once, when the gateway starts.
    pub fn develop(mut self, develop: bool) -> Self {
        self.develop = develop;
        self
    }

    /// The `Content-Security-Policy` of pages, instead of `default-src 'self'` with what follows from it: scripts, styles and
    /// connections of the same origin, nothing inline, and in no frames of others.
    pub fn policy(mut self, policy: impl Into<String>) -> Self {
        self.policy = policy.into();
        self
    }
}

/// The names of all templates in a folder.
pub(super) fn templates(folder: &Path) -> Result<Vec<String>, String> {
    let mut found = files(folder, TEMPLATES_MAX, "templates")?;
    found.retain(|name| !name.split('/').any(|segment| segment.starts_with('.')));
    Ok(found)
}

/// The paths of all files below a folder, from there and with slashes between; those that are hidden left out.
pub(super) fn files(folder: &Path, max: usize, what: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let told = |error: std::io::Error| format!("the folder `{}` cannot be read: {error}", folder.display());
        for entry in fs::read_dir(&folder).map_err(told)? {
            let entry = entry.map_err(told)?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
            let path = format!("{prefix}{name}");
            // Followed if it is a link: the folder is the operator's.
            let kind = fs::metadata(entry.path()).map_err(told)?;
            if kind.is_dir() && path.split('/').count() < 32 {
                folders.push((entry.path(), format!("{path}/")));
            } else if kind.is_file() {
                found.push(path);
            }
            if found.len() + folders.len() > max {
                return Err(format!("the folder `{}` has more than {max} {what}", folder.display()));
            }
        }
    }
    Ok(found)
}
