//! What the compiler tells somebody new to edri.
//!
//! Each file of `compile_fail/` is a program of a crate that depends on edri alone. One called `ok_*.rs` compiles without
//! a warning. In the others, comments say what the compiler is to answer, and it may report no other error:
//!
//! ```text
//! bus.publish(AssessRisk {}).await?; //~ ERROR text of an error reported on this line
//! //~ HELP text that is somewhere in that error
//! //~ NOTE another
//! ```
//!
//! Texts are parts of messages, labels, notes and suggestions, not of what rustc makes of them on the screen, which differs
//! between its versions.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use serde_json::Value;

/// Compiled once for all tests here.
static PROGRAMS: LazyLock<Vec<Program>> = LazyLock::new(|| compile().expect("the programs can be given to cargo"));

#[test]
fn a_newcomers_program_takes_less_than_forty_lines_and_compiles_without_warnings() {
    let programs: Vec<_> = PROGRAMS.iter().filter(|program| program.is_right()).collect();
    assert!(!programs.is_empty());
    for program in programs {
        let said: String = program.diagnostics.iter().map(|said| &*said.rendered).collect();
        assert!(said.is_empty(), "{}:\n\n{said}", program.path.display());
        assert!(program.source.lines().count() < 40, "{} is too long", program.path.display());
    }
}

#[test]
fn each_mistake_is_answered_on_its_line_with_what_to_do_and_nothing_else() {
    let mut unmet = String::new();
    for program in PROGRAMS.iter().filter(|program| !program.is_right()) {
        let found = program.compare();
        if found.is_empty() {
            continue;
        }
        writeln!(unmet, "\n==== {}", program.path.display()).expect("a String takes all");
        found.iter().for_each(|line| unmet.extend(["- ", line, "\n"]));
        unmet.push_str("what the compiler said:\n\n");
        program.errors().for_each(|error| unmet.push_str(&error.rendered));
    }
    assert!(unmet.is_empty(), "{unmet}");
}

// ---- programs ------------------------------------------------------------------------------------------------------

struct Program {
    name: String,
    path: PathBuf,
    source: String,
    diagnostics: Vec<Diagnostic>,
}

/// An error that a comment asks for.
struct Expected {
    line: u64,
    error: String,
    /// What the error is to say beside.
    details: Vec<String>,
}

impl Program {
    /// The programs in a directory, ordered by name.
    fn all(dir: &Path) -> io::Result<Vec<Self>> {
        let mut programs = Vec::new();
        for file in fs::read_dir(dir)? {
            let path = file?.path();
            if path.extension() != Some(OsStr::new("rs")) {
                continue;
            }
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            programs.push(Self { name, source: fs::read_to_string(&path)?, path, diagnostics: Vec::new() });
        }
        programs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(programs)
    }

    fn is_right(&self) -> bool {
        self.name.starts_with("ok_")
    }

    fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().filter(|said| said.is_error)
    }

    /// The errors that the comments ask for.
    fn expected(&self) -> Vec<Expected> {
        let mut expected: Vec<Expected> = Vec::new();
        for (line, text) in (1..).zip(self.source.lines()) {
            let Some((_, comment)) = text.split_once("//~ ") else { continue };
            let (word, text) = comment.trim().split_once(' ').unwrap_or((comment, ""));
            let (text, at) = (text.trim().to_owned(), format!("{}:{line}", self.path.display()));
            assert!(!text.is_empty(), "{at}: `{comment}` expects no text");
            match (word, expected.last_mut()) {
                ("ERROR", _) => expected.push(Expected { line, error: text, details: Vec::new() }),
                ("HELP" | "NOTE", Some(error)) => error.details.push(text),
                ("HELP" | "NOTE", None) => panic!("{at}: {word} stands before the ERROR it belongs to"),
                _ => panic!("{at}: `{word}` is neither ERROR nor HELP nor NOTE"),
            }
        }
        expected
    }

    /// What is not as the comments say.
    fn compare(&self) -> Vec<String> {
        let expected = self.expected();
        let mut unmet = Vec::new();
        if expected.is_empty() {
            unmet.push("no comment says what is wrong with it".to_owned());
        }
        if self.errors().next().is_none() {
            unmet.push("it compiles".to_owned());
        }
        for Expected { line, error, details } in &expected {
            let fits = |said: &&Diagnostic| said.lines.contains(line) && said.says(error);
            let found: Vec<_> = self.errors().filter(fits).collect();
            if found.is_empty() {
                unmet.push(format!("line {line} has no such error: {error}"));
            }
            let missing = details.iter().filter(|detail| !found.iter().any(|said| said.says(detail)));
            if !found.is_empty() {
                unmet.extend(missing.map(|detail| format!("the error on line {line} does not say: {detail}")));
            }
        }
        let surplus = self.errors().filter(|said| !expected.iter().any(|error| said.lines.contains(&error.line)));
        unmet.extend(surplus.map(|said| format!("lines {:?} have an error too many: {}", said.lines, said.texts[0])));
        unmet
    }
}

// ---- what the compiler says ----------------------------------------------------------------------------------------

struct Diagnostic {
    is_error: bool,
    /// The lines that it points at.
    lines: Vec<u64>,
    /// Its message, labels, notes and suggestions.
    texts: Vec<String>,
    rendered: String,
}

impl Diagnostic {
    /// Reads what rustc writes with `--error-format=json`; `None` for the summary at its end, which points nowhere.
    fn read(message: &Value) -> Option<Self> {
        let spans = message["spans"].as_array()?;
        let primary = spans.iter().filter(|span| span["is_primary"] == true);
        let lines: Vec<_> = primary.filter_map(|span| span["line_start"].as_u64()).collect();
        let mut texts = Vec::new();
        collect_texts(message, &mut texts);
        let is_error = message["level"].as_str()?.starts_with("error");
        let rendered = message["rendered"].as_str()?.to_owned();
        (!lines.is_empty()).then_some(Self { is_error, lines, texts, rendered })
    }

    fn says(&self, text: &str) -> bool {
        self.texts.iter().any(|said| said.contains(text))
    }
}

fn collect_texts(message: &Value, texts: &mut Vec<String>) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    texts.extend(text(&message["message"]));
    for span in message["spans"].as_array().into_iter().flatten() {
        texts.extend(text(&span["label"]).into_iter().chain(text(&span["suggested_replacement"])));
    }
    for child in message["children"].as_array().into_iter().flatten() {
        collect_texts(child, texts);
    }
}

// ---- cargo ---------------------------------------------------------------------------------------------------------

/// Makes a package of all programs and has it checked.
fn compile() -> io::Result<Vec<Program>> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = tests.parent().ok_or(io::ErrorKind::NotFound)?;
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or(io::ErrorKind::NotFound)?;
    let package = target.join("compile-fail");
    let mut programs = Program::all(&tests.join("compile_fail"))?;

    let manifest = fs::read_to_string(tests.join("compile_fail/Cargo.toml"))?;
    let edri = format!("path = {:?}", root.join("edri"));
    let mut manifest = manifest.replace("path = \"../../edri\"", &edri);
    for Program { name, path, .. } in &programs {
        write!(manifest, "\n[[bin]]\nname = {name:?}\npath = {path:?}\n").map_err(io::Error::other)?;
    }
    fs::create_dir_all(&package)?;
    fs::write(package.join("Cargo.toml"), manifest)?;
    // The versions that the workspace has, which are on this machine.
    fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock"))?;

    let mut output = check(&package, &["--offline"])?;
    if messages(&output).next().is_none() {
        output = check(&package, &[])?;
    }
    let mut is_done = false;
    for message in messages(&output) {
        is_done |= message["reason"] == "build-finished";
        let Some(name) = message["target"]["name"].as_str() else { continue };
        if let Some(program) = programs.iter_mut().find(|program| program.name == name) {
            program.diagnostics.extend(Diagnostic::read(&message["message"]));
        } else if message["message"]["level"] == "error" {
            return Err(io::Error::other(format!("{name}: {}", message["message"]["rendered"])));
        }
    }
    if is_done { Ok(programs) } else { Err(io::Error::other(String::from_utf8_lossy(&output.stderr))) }
}

fn check(package: &Path, network: &[&str]) -> io::Result<Output> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Command::new(cargo)
        .args(["check", "--bins", "--keep-going", "--message-format=json"])
        .args(network)
        .arg("--target-dir")
        .arg(package.join("target"))
        .current_dir(package)
        .output()
}

/// What cargo says, a line each.
fn messages(output: &Output) -> impl Iterator<Item = Value> {
    output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}
