//! Nodes that the command runs, as whoever starts them sees them.

mod guide;
mod rolling;
mod support;
#[cfg(feature = "otlp")]
mod traces;

use std::fs;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;

use support::{Folder, Running, edri, http, python, repository, run, said, text, until};

#[test]
fn without_a_file_a_node_with_gateway_store_and_scheduler_runs_and_prints_its_token_once() {
    let mut node =
        Running::start(edri(&["run"]).env("EDRI__API__BIND", "127.0.0.1:0").env("EDRI__LOG__FILTER", "debug"));
    let gateway = node.gateway();
    let token = node.told("token");
    let (set, get) = ("/events/store.default.set", "/events/store.default.get");
    let body = r#"{"key": "greeting", "value": "hello"}"#;
    assert_eq!(http(gateway, "POST", set, None, body).0, 401);
    assert_eq!(http(gateway, "POST", set, Some("edri_0"), body).0, 401);
    assert_eq!(http(gateway, "POST", set, Some(&token), body).0, 200);
    let (status, item) = http(gateway, "POST", get, Some(&token), r#"{"key": "greeting"}"#);
    assert_eq!((status, item.contains("hello")), (200, true), "{item}");
    assert_eq!(http(gateway, "POST", "/events/schedule.list", Some(&token), "{}").0, 200);
    // What it says to try is something to try.
    let example = node.told("try");
    assert_eq!(example, "curl");
    let line = node.lines.last().expect("was said").clone();
    assert!(line.contains(set) && line.contains(&token), "{line}");
    let (code, log) = node.end();
    assert_eq!(code, Some(0));
    assert!(log.contains("stopped") && !log.contains(&token), "{log}");
}

#[test]
fn a_port_that_is_taken_is_told_of_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("is bound");
    let address = taken.local_addr().expect("is bound").to_string();
    let output = run(edri(&["run"]).env("EDRI__API__BIND", &address));
    assert_eq!(output.status.code(), Some(1));
    let errors = said(&output.stderr);
    assert!(errors.contains(&format!("{address} is taken")) && errors.contains("EDRI__API__BIND="), "{errors}");
}

#[test]
fn check_tells_all_mistakes_at_once_starts_nothing_and_exits_with_2() {
    let folder = Folder::new();
    let file = folder.write(
        "edri.toml",
        "nme = \"x\"\n[links]\nlisten = \"[::]:0\"\nidentity = \"keys\"\n[api]\nfiles = \"public\"\n[api.tls]\ncertificate = \"a.pem\"\n\
         key = \"a.key\"\n[managers.report]\ncommand = \"./report\"\n",
    );
    for verb in ["check", "run"] {
        let output = run(&mut edri(&[verb, text(&file)]));
        assert_eq!(output.status.code(), Some(2), "{verb}");
        let errors = said(&output.stderr);
        for expect in [
            ":1:1: nme: `nme` is not known: did you mean `name`?",
            ":4:1: links.identity: ",
            "public`",
            "a.pem` cannot be read",
            "a.key` cannot be read",
            "report` is not there",
        ] {
            assert!(errors.contains(expect), "{expect} in {errors}");
        }
        assert!(output.stdout.is_empty());
    }
    let right = folder.write("right.toml", "[api]\nopen = true\n");
    let output = run(&mut edri(&["check", text(&right)]));
    assert_eq!((output.status.code(), said(&output.stderr)), (Some(0), String::new()));
    let output = run(&mut edri(&["run", "/nowhere/edri.toml"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output.stderr).contains("/nowhere/edri.toml` cannot be read"));
}

#[test]
fn the_reference_is_printed_and_read_again() {
    let folder = Folder::new();
    let output = run(&mut edri(&["run", "--reference"]));
    assert_eq!(output.status.code(), Some(0));
    let file = folder.write("edri.toml", &said(&output.stdout));
    // All its options are known; the files that it names as examples are not there.
    let output = run(&mut edri(&["check", text(&file)]));
    let errors = said(&output.stderr);
    assert!(!errors.contains("not known") && errors.contains("server.pem"), "{errors}");
}

#[test]
fn a_hang_up_opens_the_log_anew_and_the_node_runs_on() {
    let folder = Folder::new();
    let file = folder.write(
        "edri.toml",
        "[api]\nbind = \"127.0.0.1:0\"\nopen = true\n[log]\nformat = \"json\"\nfile = \"node.log\"\n",
    );
    let mut node = Running::start(&mut edri(&["run", text(&file)]));
    let gateway = node.gateway();
    let (log, moved) = (folder.0.join("node.log"), folder.0.join("node.log.1"));
    fs::rename(&log, &moved).expect("is moved");
    node.signal("-HUP");
    until("a new log", || fs::read_to_string(&log).is_ok_and(|text| text.contains("opened anew")));
    assert_eq!(http(gateway, "GET", "/healthz", None, "").0, 200);
    assert_eq!(node.end().0, Some(0));
    for line in fs::read_to_string(&log).expect("is there").lines() {
        assert!(line.starts_with('{') && line.ends_with('}'), "{line}");
    }
}

#[test]
fn keys_are_closed_to_others_and_nothing_is_written_over_unless_it_is_asked_for() {
    let folder = Folder::new();
    let (authority, identity) = (folder.0.join("authority"), folder.0.join("north"));
    let keys = |arguments: &[&str]| run(&mut edri(&[&["keys"], arguments].concat()));
    assert!(keys(&["node", text(&authority), "north"]).status.code() == Some(1), "there is no authority yet");
    assert!(keys(&["init", text(&authority)]).status.success());
    assert_eq!(keys(&["init", text(&authority)]).status.code(), Some(1));
    assert!(keys(&["node", text(&authority), "north"]).status.success());
    for key in [authority.join("authority.key"), identity.join("node.key")] {
        assert_eq!(fs::metadata(&key).expect("is there").permissions().mode() & 0o777, 0o600, "{key:?}");
    }
    let key = || fs::read(identity.join("node.key")).expect("is there");
    let before = key();
    let refused = keys(&["node", text(&authority), "north"]);
    assert_eq!((refused.status.code(), key() == before), (Some(1), true));
    assert!(said(&refused.stderr).contains("edri keys rotate"));
    assert!(keys(&["node", text(&authority), "north", "--force"]).status.success());
    let forced = key();
    assert!(keys(&["rotate", text(&authority), text(&identity), "--days", "7"]).status.success());
    assert!(before != forced && forced != key());
    let shown = said(&keys(&["show", text(&authority), text(&identity)]).stdout);
    assert!(shown.contains("node       north") && shown.contains("(7 days)"), "{shown}");
    let fingerprint = shown.lines().find_map(|line| line.trim().strip_prefix("trusts     ")).expect("is shown");
    assert!(shown.contains(&format!("authority  {fingerprint}")), "{shown}");
    assert_eq!(keys(&["node", text(&authority), "no such name"]).status.code(), Some(2));
}

#[test]
fn a_token_of_the_command_is_taken_by_the_gateway_that_its_lines_are_given_to() {
    let folder = Folder::new();
    let made = said(&run(&mut edri(&["token", "dashboard"])).stdout);
    let (secret, lines) = made.split_once("for the configuration of the node:\n").expect("both are told");
    let secret = secret.lines().nth(1).expect("is told").trim();
    let file = format!("[api]\nbind = \"127.0.0.1:0\"\nexpose = [\">\"]\n{lines}\n[stores.store.namespaces.default]\n");
    let file = folder.write("edri.toml", &file);
    let mut node = Running::start(&mut edri(&["run", text(&file)]));
    let gateway = node.gateway();
    let count = |token| http(gateway, "POST", "/events/store.default.count", token, r#"{"prefix": ""}"#).0;
    assert_eq!((count(None), count(Some(secret))), (401, 200));
    assert_eq!(node.end().0, Some(0));
}

#[test]
fn nodes_that_are_configured_by_files_reach_each_other() {
    let folder = Folder::new();
    let authority = folder.0.join("authority");
    assert!(run(&mut edri(&["keys", "init", text(&authority)])).status.success());
    for name in ["north", "south"] {
        assert!(run(&mut edri(&["keys", "node", text(&authority), name])).status.success());
    }
    let port = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("is bound").port();
    let north = format!(
        "name = \"north\"\n[links]\nidentity = \"north\"\nlisten = \"127.0.0.1:{port}\"\n[api]\nbind = \"127.0.0.1:0\"\nopen = true\n\
         [stores.store.namespaces.parcels]\n"
    );
    let south = format!(
        "name = \"south\"\n[links]\nidentity = \"south\"\nconnect = [\"127.0.0.1:{port}\"]\nexpects = [\"north\"]\n[api]\nbind = \"127.0.0.1:0\"\n\
         open = true\nexpose = [\"store.>\"]\n[events.\"store.parcels.count\"]\nkind = \"request\"\nidempotent = true\n"
    );
    let (north, south) = (folder.write("north.toml", &north), folder.write("south.toml", &south));
    let north = Running::start(&mut edri(&["run", text(&north)]));
    let mut south = Running::start(&mut edri(&["run", text(&south)]));
    let gateway = south.gateway();
    let counted = http(gateway, "POST", "/events/store.parcels.count", None, r#"{"prefix": ""}"#);
    assert_eq!(counted, (200, "0".to_owned()));
    assert_eq!((south.end().0, north.end().0), (Some(0), Some(0)));
}

#[test]
fn a_file_of_toml_and_one_of_python_are_a_service() {
    let file = repository().join("examples/python-service/edri.toml");
    // From anywhere: its paths are relative to the file.
    let mut command = edri(&["run", text(&file)]);
    command.current_dir("/").env("EDRI__API__BIND", "127.0.0.1:0");
    command.env("EDRI__MANAGERS__GREETINGS__INTERPRETER", python());
    let mut node = Running::start(&mut command);
    let gateway = node.gateway();
    let greeted = http(gateway, "GET", "/greetings/Ada", None, "");
    assert_eq!(greeted, (200, r#"{"text":"Hello, Ada!"}"#.to_owned()));
    let (status, document) = http(gateway, "GET", "/openapi.json", None, "");
    assert_eq!((status, document.contains("/greetings/{name}")), (200, true));
    assert_eq!(
        http(gateway, "POST", "/events/greeting.given", None, r#"{"name": "Eve"}"#).0,
        401,
        "nobody may publish"
    );
    assert_eq!(node.end().0, Some(0));
}

#[test]
fn a_python_without_the_sdk_is_told_of_with_what_to_do() {
    let folder = Folder::new();
    folder.write("worker.py", "import edri_sdk\n");
    let file = folder.write(
        "edri.toml",
        "[managers.report]\ncommand = \"worker.py\"\ninterpreter = \"python3\"\nenvironment = { PYTHONPATH = \"\" }\n",
    );
    let output = run(&mut edri(&["run", text(&file)]));
    assert_eq!(output.status.code(), Some(1));
    let errors = said(&output.stderr);
    assert!(errors.contains("lacks edri's SDK") && errors.contains("interpreter"), "{errors}");
}

#[test]
fn a_second_interrupt_ends_a_node_at_once() {
    let folder = Folder::new();
    folder.write(
        "worker.py",
        "import time\nfrom edri_sdk import Worker\nworker = Worker()\n\n@worker.notification('nap.taken')\ndef nap(it: dict) -> None:\n    \
         print('napping', flush=True)\n    time.sleep(600)\n\nworker.run()\n",
    );
    let interpreter = python();
    let file = format!(
        "drain_limit = \"10m\"\n[api]\nbind = \"127.0.0.1:0\"\nopen = true\nexpose = [\"nap.*\"]\n[log]\nfile = \"log\"\n[managers.naps]\n\
         command = \"worker.py\"\ninterpreter = \"{}\"\n",
        interpreter.display()
    );
    let file = folder.write("edri.toml", &file);
    let mut node = Running::start(&mut edri(&["run", text(&file)]));
    let gateway = node.gateway();
    let status = http(gateway, "POST", "/events/nap.taken", None, "{}").0;
    assert!((200..300).contains(&status), "{status}");
    let log = || fs::read_to_string(folder.0.join("log")).unwrap_or_default();
    until("the nap", || log().contains("napping"));
    node.signal("-INT");
    until("the gateway has closed", || TcpStream::connect(gateway).is_err());
    assert!(node.child.try_wait().expect("is asked").is_none(), "the first waits for what is in hand");
    node.signal("-INT");
    assert_eq!(node.child.wait().expect("has ended").code(), Some(1));
}
