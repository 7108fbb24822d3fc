//! Configurations and what is said of them, and the file that documents them.

use std::path::PathBuf;

use serde_json::Value;

use super::units::Size;
use super::{Config, Problem, REFERENCE, Source, Span, Variable, build_from};

fn source(text: &str, variables: &[(&str, &str)]) -> Source {
    let variables = variables.iter().map(|(name, value)| Variable::new(name, value)).collect();
    Source::text("edri.toml", text, PathBuf::from("/nowhere"), variables)
}

fn problems(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let problems = build_from(&source(text, variables)).err().unwrap_or_default();
    problems.iter().map(Problem::to_string).collect()
}

#[track_caller]
fn check(text: &str, expect: &[&str]) {
    assert_eq!(problems(text, &[]), expect, "{text}");
}

/// The reference with every option that is commented out.
fn whole_reference() -> String {
    let is_option =
        |line: &str| line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
    REFERENCE.lines().map(|line| if is_option(line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n")
}

/// The schema of the configuration, each type in its place.
fn schema() -> Value {
    let settings =
        schemars::generate::SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Config>().into()
}

/// Of `Option<T>` the schema of `T`.
fn inner(schema: &Value) -> &Value {
    let any = schema.get("anyOf").and_then(Value::as_array);
    any.and_then(|any| any.iter().find(|one| one.get("type") != Some(&"null".into()))).unwrap_or(schema)
}

/// Goes through schema and reference together and says where they differ.
fn compare(path: &str, schema: &Value, value: &toml::Value, found: &mut Vec<String>) {
    let schema = inner(schema);
    if let (Some(items), toml::Value::Array(values)) = (schema.get("items"), value) {
        for value in values.iter().filter(|_| inner(items).get("properties").is_some()) {
            compare(path, items, value, found);
        }
    }
    let toml::Value::Table(table) = value else { return };
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (key, property) in properties {
            let path = format!("{path}.{key}");
            match table.get(key) {
                None => found.push(format!("{path} is not in the reference")),
                Some(value) => {
                    compare_default(&path, key, property, value, found);
                    compare(&path, property, value, found);
                }
            }
        }
        found.extend(
            table.keys().filter(|key| !properties.contains_key(*key)).map(|key| format!("{path}.{key} is no option")),
        );
    } else if let Some(entries) = schema.get("additionalProperties").filter(|entries| entries.is_object()) {
        for (key, value) in table {
            compare(&format!("{path}.{key}"), entries, value, found);
        }
    }
}

fn compare_default(path: &str, key: &str, property: &Value, value: &toml::Value, found: &mut Vec<String>) {
    let Some(default) = property.get("default") else { return };
    if default.is_null() {
        let (lines, wanted) =
            (REFERENCE.lines().collect::<Vec<_>>(), [format!("#{key} = "), format!("{key} = "), format!("{key}]")]);
        let is_said = lines.iter().enumerate().any(|(at, line)| {
            wanted.iter().any(|start| line.starts_with(start.as_str()) || line.ends_with(start.as_str()))
                && lines[..at]
                    .iter()
                    .rev()
                    .take_while(|line| line.starts_with("# "))
                    .any(|line| line.starts_with("# Unset"))
        });
        found.extend((!is_said).then(|| format!("{path} has no default: its comment begins with `Unset`")));
        return;
    }
    // A section of its own is compared option by option; entries of tables and lists are examples.
    if value.is_table() || value.as_array().is_some_and(|items| items.iter().any(toml::Value::is_table)) {
        return;
    }
    let same = match (default, value) {
        (Value::String(default), toml::Value::String(text)) => {
            default == text || Span::parse(default).is_ok_and(|span| Span::parse(text) == Ok(span))
        }
        (Value::Number(default), toml::Value::String(text)) => {
            Size::parse(text).is_ok_and(|size| Some(size.bytes()) == default.as_u64())
        }
        (default, value) => serde_json::to_value(value).is_ok_and(|value| value == *default),
    };
    found.extend((!same).then(|| format!("{path} is {value} in the reference and {default} by default")));
}

#[test]
fn the_reference_has_every_option_with_its_default_and_no_other() {
    let text = whole_reference();
    let value: toml::Value = toml::from_str(&text).expect("it is TOML");
    let mut found = Vec::new();
    compare("", &schema(), &value, &mut found);
    assert_eq!(found, Vec::<String>::new());
    // And every line of it is understood, as it stands and with all options.
    for text in [&text, REFERENCE] {
        let (_, _, problems) = source(text, &[]).read();
        assert_eq!(problems, []);
    }
}

#[test]
fn an_option_that_is_missing_from_the_reference_or_wrong_there_is_found() {
    let text = whole_reference().replace("outbox = 1024", "outbox = 512").replace("switch = false", "swich = false");
    let value: toml::Value = toml::from_str(&text).expect("it is TOML");
    let mut found = Vec::new();
    compare("", &schema(), &value, &mut found);
    found.sort();
    let expect = [
        ".links.outbox is 512 in the reference and 1024 by default",
        ".links.swich is no option",
        ".links.switch is not in the reference",
    ];
    assert_eq!(found, expect);
}

#[test]
fn all_mistakes_are_told_at_once_each_with_its_place_and_the_name_that_was_meant() {
    let text = "nam = \"x\"\ndrain_limit = 5\n[api]\nexpse = []\nbind = \"localhost\"\n[limits]\npending = \"many\"\n";
    check(
        text,
        &[
            "edri.toml:1:1: nam: `nam` is not known: did you mean `name`?",
            "edri.toml:2:1: drain_limit: invalid type: integer `5`, expected a time with its unit, like \"500ms\" or \"2s\"",
            "edri.toml:4:1: api.expse: `expse` is not known: did you mean `expose`?",
            "edri.toml:5:1: api.bind: `localhost` is no address to listen on: write it like `127.0.0.1:8080`",
            "edri.toml:7:1: limits.pending: invalid type: string \"many\", expected a whole number",
        ],
    );
}

#[test]
fn entries_behind_one_that_is_wrong_are_told_of_by_their_own_numbers_and_places() {
    let text = "[[scheduler.entries]]\nevery = \"1s\"\npublish = 3\n[[scheduler.entries]]\nid = 5\n\
                [[scheduler.entries]]\ncron = \"61 * * * *\"\npublish = \"a\"\n";
    check(
        text,
        &[
            "edri.toml:1:1: scheduler.entries.0: it says what to send in one way: `publish` or `request`, an event's name",
            "edri.toml:3:1: scheduler.entries.0.publish: invalid type: integer `3`, expected a string",
            "edri.toml:4:1: scheduler.entries.1: it says when in one way: `cron`, `every`, `aligned`, `after` or `at`",
            "edri.toml:4:1: scheduler.entries.1: it says what to send in one way: `publish` or `request`, an event's name",
            "edri.toml:5:1: scheduler.entries.1.id: invalid type: integer `5`, expected a string",
            "edri.toml:6:1: scheduler.entries.2: cron expression `61 * * * *`: minute: 61 is not within 0 to 59",
        ],
    );
    let token = |rest: &str| format!("[[api.tokens]]\n{rest}\n");
    let text = token("name = \"a\"") + &token("name = \"b\"") + &token("name = \"c\"\nhash = \"x\"\nmay = {}");
    check(
        &text,
        &[
            "edri.toml:1:1: api.tokens.0: it lacks `hash`",
            "edri.toml:3:1: api.tokens.1: it lacks `hash`",
            "edri.toml:5:1: api.tokens.2: the hash of the token of `c` is none: write `sha256:` and 64 hexadecimal digits, as \
         `Token::hash` gives them",
        ],
    );
}

#[test]
fn names_that_are_there_twice_are_refused() {
    let text = "[scheduler]\n[stores.scheduler.namespaces.a]\n[stores.b.namespaces.a]\n";
    check(
        text,
        &[
            "edri.toml:2:9: stores.scheduler: another manager of the node has that name: stores, the scheduler, `managers` and `remote` share names",
            "edri.toml:2:30: stores.scheduler.namespaces.a: store `b` has a namespace of that name: a namespace has one owner",
        ],
    );
}

#[test]
fn the_name_of_the_manager_that_answers_for_the_node_is_refused() {
    let reserved = "the manager that answers for the node has that name: choose another";
    check("[scheduler]\nname = \"edri\"\n", &[&format!("edri.toml:2:1: scheduler.name: {reserved}")]);
    check("[stores.edri.namespaces.a]\n", &[&format!("edri.toml:1:9: stores.edri: {reserved}")]);
    check("[api]\nopen = true\n[remote.edri]\n", &[&format!("edri.toml:3:9: remote.edri: {reserved}")]);
}

#[test]
fn links_that_could_not_last_and_shares_that_are_none_are_refused() {
    let text = "[traces]\nshare = 1.5\n[links.transport]\nkeep_alive = \"3s\"\nfirst_pause = \"10s\"\nlongest_pause = \"400days\"\n\
                window = 1\ndatagram = 500\n";
    let told = problems(text, &[]);
    for expect in [
        "edri.toml:2:1: traces.share: 1.5 is no share: write a number from 0.0 (none) to 1.0 (all)",
        "edri.toml:3:8: links.transport.silence: a link without events would be cut: it has to be longer than `keep_alive`",
        "edri.toml:6:1: links.transport.longest_pause: it is a day at most",
        "edri.toml:7:1: links.transport.window: it is 64KiB to 1GiB",
        "edri.toml:8:1: links.transport.datagram: every path carries 1200 bytes: it is no less",
    ] {
        assert!(told.iter().any(|told| told == expect), "{expect} in {told:#?}");
    }
    let told = problems("[links.transport]\nfirst_pause = \"10s\"\n", &[]);
    assert!(told.iter().any(|told| told.contains("longest_pause: it is shorter than `first_pause`")), "{told:#?}");
}

#[test]
fn variables_override_the_file_and_are_named_when_they_are_wrong() {
    let read = |text: &str, variables: &[(&str, &str)]| {
        let source = source(text, variables);
        let (_, config, problems) = source.read();
        assert_eq!(problems, []);
        config
    };
    let file =
        "name = \"north\"\n[managers.Report]\ncommand = \"a\"\n[[api.tokens]]\nname = \"a\"\nhash = \"b\"\nmay = {}\n";
    let variables = [
        ("EDRI__API__EXPOSE", "[\"a.>\"]"),
        ("EDRI__API__TOKENS__0__HASH", "c"),
        ("EDRI__DRAIN_LIMIT", "5s"),
        ("EDRI__MANAGERS__REPORT__INSTANCES", "3"),
        // Like a number, and a text all the same.
        ("EDRI__NAME", "7"),
    ];
    let config = serde_json::to_value(read(file, &variables)).expect("is serialized");
    let at = |path: &str| config.pointer(path).cloned().unwrap_or_default();
    assert_eq!(at("/name"), "7");
    assert_eq!(at("/drain_limit"), "5s");
    assert_eq!(at("/api/expose/0"), "a.>");
    assert_eq!(at("/api/tokens/0/hash"), "c");
    assert_eq!(at("/managers/Report/instances"), 3);

    let wrong = |name: &str, value: &str, expect: &str| {
        let told = problems("[api]\nopen = true", &[(name, value)]);
        assert_eq!(told, [expect], "{name}={value}");
    };
    wrong("EDRI__API__BNID", "x", "EDRI__API__BNID: api.bnid: `bnid` is not known: did you mean `bind`?");
    wrong(
        "EDRI__API__BIND",
        "x",
        "EDRI__API__BIND: api.bind: `x` is no address to listen on: write it like `127.0.0.1:8080`",
    );
    wrong(
        "EDRI__API__TOKENS__0__NAME",
        "x",
        "EDRI__API__TOKENS__0__NAME: api.tokens: invalid type: map, expected a list",
    );
    wrong(
        "EDRI__API__OPEN__X",
        "x",
        "EDRI__API__OPEN__X: `api.open` is a value and has nothing within: set it as a whole",
    );
    wrong(
        "EDRI____X",
        "x",
        "EDRI____X: it names no key: write it like `EDRI__API__BIND`, two underscores between names",
    );
}

#[test]
fn text_that_is_no_toml_is_told_of_with_its_place() {
    check("a = 1\nname = \n", &["edri.toml:2:8: string values must be quoted, expected literal string"]);
}

#[test]
fn nothing_in_a_configuration_can_panic_the_command() {
    let mut seed = fastrand::Rng::with_seed(7);
    let text = whole_reference();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for _ in 0..300 {
        let mut chosen: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        for _ in 0..seed.usize(1..6) {
            let (at, other) = (seed.usize(..chosen.len()), seed.usize(..chosen.len()));
            match seed.u8(..5) {
                0 => chosen.swap(at, other),
                1 => chosen[at].clear(),
                2 => chosen[at] = chosen[at].replace(['"', '='], ""),
                3 => chosen[at] = chosen[at].replace(|c: char| c.is_ascii_digit(), "-9"),
                _ => {
                    let value = chosen[other].split('=').next_back().unwrap_or_default().to_owned();
                    chosen[at] = format!("{}={value}", chosen[at].split('=').next().unwrap_or_default());
                }
            }
        }
        let text = chosen.join("\n");
        let problems = build_from(&source(&text, &[])).err().unwrap_or_default();
        assert!(!problems.is_empty(), "the files it names are not there");
    }
}
