//! `top` without a terminal, and `bench`.

use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::node::{LIMIT, Used, used};

#[tokio::test(flavor = "multi_thread")]
async fn top_writes_lines_where_there_is_no_terminal() {
    let used = used().await;
    let told = used.run(&["top", "--interval", "100ms", "--count", "2"]).await.ok();
    assert_eq!(told.out.lines().filter(|line| line.starts_with("north running")).count(), 2, "{told:?}");
    assert!(told.out.contains("  north/model running") && !told.out.contains('\x1b'), "{told:?}");
    let values = used.run(&["top", "--interval", "100ms", "--count", "2", "--json"]).await.ok().values();
    assert_eq!((values.len(), &values[0]["managers"][0]["manager"]), (2, &json!("model")));
    used.run(&["top", "--to", "south"]).await.failed(5, "no node `south`");
    used.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bench_puts_load_on_a_node_and_tells_of_it() {
    let used = used().await;
    let quake = r#"{"region": "@pad", "magnitude": 1}"#;
    let arguments =
        ["bench", "quake.recorded", quake, "--size", "100", "--rate", "200", "--duration", "1s", "--connections", "2"];
    let told = used.run(&[&arguments[..], &["--json"]].concat()).await.ok().values();
    assert_eq!(told[0]["calls"], 200, "{told:?}");
    assert!(told[0]["latency_us"]["p50"].as_u64() <= told[0]["latency_us"]["max"].as_u64());
    used.node.at_rest().await;
    let model = used.node.topology().manager("model").expect("there").account;
    // One more is sent first, to see whether it can be.
    assert_eq!(model.handled, 201);
    let ask = r#"{"region": "north"}"#;
    let told = used.run(&["bench", "risk.assess", ask, "--request", "--duration", "500ms"]).await.ok();
    assert!(told.out.contains(" requests in ") && told.out.contains("p99.9"), "{told:?}");
    used.run(&["bench", "risk.nobody", "--request", "--duration", "500ms"]).await.failed(5, "nobody handles");
    used.run(&["bench", "quake.recorded", ask, "--size", "5"]).await.failed(2, "@pad");
    used.node.shutdown().await;
}

/// Runs `top` on a terminal, presses this once the view is there, and gives back all that was written, and the exit code.
async fn on_a_terminal(used: &Used, press: &str) -> (String, Option<i32>) {
    let top = format!("{} top --interval 100ms", env!("CARGO_BIN_EXE_edri"));
    let mut script = used.command(&[]);
    // The same environment, but on a terminal that `script` makes.
    let environment: Vec<_> =
        script.as_std().get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
    script = tokio::process::Command::new("script");
    script.args(["--quiet", "--return", "--flush", "--command", &format!("stty rows 20 cols 140; {top}"), "/dev/null"]);
    for (name, value) in environment {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    script.env("EDRI_TOKEN", &used.operator).env("TERM", "xterm-256color").kill_on_drop(true);
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script runs");
    let (mut input, mut output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
    let mut written = Vec::new();
    let wait = async {
        let mut pressed = false;
        let mut piece = [0; 4096];
        loop {
            let read = output.read(&mut piece).await.expect("read");
            if read == 0 {
                return child.wait().await.expect("ends").code();
            }
            written.extend_from_slice(&piece[..read]);
            if !pressed && String::from_utf8_lossy(&written).contains("RESTARTS") {
                pressed = true;
                input.write_all(press.as_bytes()).await.expect("is read");
            }
        }
    };
    let code = tokio::time::timeout(LIMIT, wait).await.expect("ends in time");
    (String::from_utf8_lossy(&written).into_owned(), code)
}

#[tokio::test(flavor = "multi_thread")]
async fn top_gives_the_terminal_back_whether_it_is_quit_or_interrupted() {
    let used = used().await;
    for (press, expect) in [("q", 0), ("\x03", 130)] {
        let (written, code) = on_a_terminal(&used, press).await;
        assert_eq!(code, Some(expect), "{press:?}: {written}");
        let (begun, ended) = (written.find("\x1b[?1049h"), written.rfind("\x1b[?1049l"));
        assert!(begun.is_some() && ended > begun, "another screen, and back: {written:?}");
        assert!(written.rfind("\x1b[?25h") > written.rfind("\x1b[?25l"), "the cursor is back: {written:?}");
    }
    used.node.shutdown().await;
}
