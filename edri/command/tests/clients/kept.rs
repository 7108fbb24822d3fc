//! `schedule`, `store` and `tunnel`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use edri::prelude::*;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::node::{Used, done, interrupt, model, start, until};

/// Sums what comes, and sends each sum.
#[event(tunnel, name = "sum.up", up = i64, down = i64, result = i64, expose)]
struct SumUp {}

/// Gives back the bytes that come.
#[event(tunnel, name = "bytes.back", up = bytes::Bytes, down = bytes::Bytes, expose)]
struct BytesBack {}

struct Streams;

impl Worker for Streams {}

impl Handle<SumUp> for Streams {
    async fn handle(&mut self, _: &SumUp, cx: &mut Context) -> Result<i64, Failure> {
        let mut tunnel = cx.accept::<SumUp>()?;
        let mut sum = 0;
        while let Some(number) = tunnel.recv().await? {
            if number < 0 {
                return Err(Failure::new("negative", "a negative number"));
            }
            sum += number;
            tunnel.send(sum).await?;
        }
        Ok(sum)
    }
}

impl Handle<BytesBack> for Streams {
    async fn handle(&mut self, _: &BytesBack, cx: &mut Context) -> Result<(), Failure> {
        let mut tunnel = cx.accept::<BytesBack>()?;
        while let Some(bytes) = tunnel.recv().await? {
            tunnel.send(bytes).await?;
        }
        Ok(())
    }
}

async fn used() -> Used {
    let streams = Manager::new("streams").worker(|| Streams).handles::<SumUp>().handles::<BytesBack>();
    let app = App::new("north").manager(model()).manager(streams);
    start(app.manager(Store::memory().namespace("sessions").namespace("copy")).manager(Scheduler::new())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_added_listed_paused_run_and_cancelled() {
    let used = used().await;
    let quake = r#"{"region": "north", "magnitude": 2}"#;
    let told = used.run(&["schedule", "add", "quake.recorded", quake, "--id", "q", "--every", "1h"]).await.ok();
    assert!(told.out.starts_with("added `q`, next 20"), "{told:?}");
    let ask = r#"{"region": "north"}"#;
    let arguments = ["schedule", "add", "risk.assess", ask, "--request", "--id", "r", "--cron", "0 6 * * *", "--json"];
    assert_eq!(used.run(&arguments).await.ok().values()[0]["id"], "r");
    let table = used.run(&["schedule", "list"]).await.ok().out;
    assert!(table.contains("every 3600000ms") && table.contains("request risk.assess"), "{table}");
    assert_eq!(used.run(&["schedule", "list", "q", "--json"]).await.ok().values().len(), 1);
    assert!(used.run(&["schedule", "run", "q"]).await.ok().out.contains("is being sent"));
    until("the quake", || used.node.topology().manager("model").is_some_and(|model| model.account.handled == 1)).await;
    assert!(used.run(&["schedule", "pause", "q"]).await.ok().out.contains("is paused"));
    assert_eq!(used.run(&["schedule", "show", "q", "--json"]).await.ok().values()[0]["paused"], true);
    assert!(used.run(&["schedule", "resume", "q"]).await.ok().out.contains("goes on"));
    let entry = r#"{"id": "e", "when": {"after_ms": 3600000}, "send": {"publish": {"event": "quake.recorded"}}}"#;
    used.run(&["schedule", "add", "--entry", entry]).await.ok();
    used.run(&["schedule", "cancel", "e"]).await.ok();
    used.run(&["schedule", "cancel", "e"]).await.failed(5, "no entry `e`");
    used.run(&["schedule", "run", "e"]).await.failed(5, "unknown_entry");
    used.run(&["schedule", "add", "quake.recorded", quake]).await.failed(2, "--every");
    used.run(&["schedule", "add", "quake.recorded", quake, "--cron", "x"]).await.failed(1, "invalid_entry");
    used.run(&["schedule", "list", "--to", "other"]).await.failed(5, "at `other`");
    used.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_read_written_and_watched() {
    let used = used().await;
    assert_eq!(used.run(&["store", "set", "sessions", "s1", r#"{"name": "anna"}"#]).await.ok().out, "version 1\n");
    let told = used.run(&["store", "get", "sessions", "s1", "--json"]).await.ok();
    assert_eq!(told.values()[0], json!({"key": "s1", "value": {"name": "anna"}, "version": 1}));
    assert_eq!(used.run(&["store", "get", "sessions", "s1"]).await.ok().out, "{\n  \"name\": \"anna\"\n}\n");
    used.run(&["store", "get", "sessions", "s2"]).await.failed(5, "no key `s2`");
    used.run(&["store", "set", "sessions", "s1", "1", "--if-absent"]).await.failed(1, "exists");
    used.run(&["store", "set", "sessions", "s1", "1", "--if-version", "7"]).await.failed(1, "version_mismatch");
    used.run(&["store", "set", "sessions", "s2", "5", "--expires", "1h"]).await.ok();
    let table = used.run(&["store", "list", "sessions"]).await.ok().out;
    assert!(table.lines().count() == 3 && table.contains("59m"), "{table}");
    assert_eq!(used.run(&["store", "count", "sessions", "s"]).await.ok().out, "2\n");
    let mut child = used.spawn(&["store", "watch", "sessions", "--count", "5", "--json"]);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut whats = Vec::new();
    while let Some(line) = lines.next_line().await.expect("read") {
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        whats.push(line["what"].clone());
        if line["what"] == "ready" {
            used.run(&["store", "set", "sessions", "s3", "true"]).await.ok();
            used.run(&["store", "delete", "sessions", "s3"]).await.ok();
        }
    }
    done(child).await.ok();
    assert_eq!(whats, [json!("is"), json!("is"), json!("ready"), json!("set"), json!("deleted")]);
    used.run(&["store", "delete", "sessions", "s3"]).await.failed(5, "no key `s3`");
    // What may do all that is exposed may not do this.
    done(used.spawn_as_user(&["store", "get", "sessions", "s1"])).await.failed(4, "`store.>`");
    done(used.spawn_as_user(&["schedule", "list"])).await.failed(4, "`schedule.>`");
    used.run(&["store", "get", "nothing", "s3"]).await.failed(5, "no such namespace");
    used.run(&["store", "get", "No Name", "s3"]).await.failed(2, "no name of a namespace");
    used.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_whole_and_gives_back_what_was_there_bytes_too() {
    let used = used().await;
    let sessions = Namespace::<bytes::Bytes>::new(used.node.bus(), "sessions");
    sessions.set("bytes", &bytes::Bytes::from_static(&[0, 255, 7])).await.expect("set");
    for number in 0..450 {
        sessions.set(&format!("k{number:03}"), &bytes::Bytes::from(format!("{number}"))).await.expect("set");
    }
    used.run(&["store", "set", "sessions", "text", r#"{"a": [1, null, "x"]}"#]).await.ok();
    let folder = std::env::temp_dir().join(format!("edri-backup-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("sessions.jsonl").display().to_string();
    let told = used.run(&["store", "backup", "sessions", &file, "--json"]).await.ok();
    assert_eq!(told.values()[0]["items"], 452);
    used.run(&["store", "backup", "sessions", &file]).await.failed(2, "--overwrite");
    used.run(&["store", "backup", "sessions", &file, "--overwrite"]).await.ok();
    used.run(&["store", "set", "copy", "text", "1"]).await.ok();
    let told = used.run(&["store", "restore", "copy", &file, "--if-absent", "--json"]).await.ok();
    assert_eq!(told.values(), [json!({"written": 451, "kept": 1, "expired": 0})]);
    let copy = Namespace::<bytes::Bytes>::new(used.node.bus(), "copy");
    assert_eq!(copy.get("bytes").await.expect("asked").as_deref(), Some(&[0, 255, 7][..]));
    assert_eq!(used.run(&["store", "restore", "copy", &file]).await.ok().out, "452 items were written into `copy`\n");
    let text = used.run(&["store", "get", "copy", "text", "--json"]).await.ok();
    assert_eq!(text.values()[0]["value"], json!({"a": [1, null, "x"]}));
    let whole = std::fs::read_to_string(&file).expect("read");
    let cut = whole.lines().take(300).collect::<Vec<_>>().join("\n");
    std::fs::write(&file, cut).expect("written");
    used.run(&["store", "restore", "sessions", &file]).await.failed(2, "it was cut off");
    assert_eq!(std::fs::read_dir(&folder).expect("read").count(), 1, "nothing half done is left");
    std::fs::remove_dir_all(&folder).expect("removed");
    used.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_goes_both_ways_until_both_ends_are_done() {
    let used = used().await;
    let told = used.run_with(&["tunnel", "sum.up"], "1\n2\n\n3\n").await.ok();
    assert_eq!((told.out.as_str(), told.err.as_str()), ("1\n3\n6\n", "edri: result: 6\n"));
    let told = used.run_with(&["tunnel", "sum.up", "--json"], "1\n2\n").await.ok();
    assert_eq!(told.values(), [json!({"item": 1}), json!({"item": 3}), json!({"result": 3})]);
    for to in ["streams", "north/streams", "north/"] {
        assert_eq!(used.run_with(&["tunnel", "sum.up", "--to", to], "1\n").await.ok().out, "1\n", "{to}");
    }
    used.run_with(&["tunnel", "sum.up", "--to", "model"], "").await.failed(5, "`model`");
    used.run_with(&["tunnel", "sum.up", "--to", "south/"], "").await.failed(5, "`south/`");
    // The worker ends it, and the input is not waited for.
    let mut child = used.spawn(&["tunnel", "sum.up"]);
    let mut input = child.stdin.take().expect("piped");
    input.write_all(b"1\n-1\n").await.expect("is read");
    done(child).await.failed(1, "negative: a negative number");
    used.run_with(&["tunnel", "sum.up"], "1\nx\n").await.failed(2, "line 2 is no JSON");
    used.run_with(&["tunnel", "sum.down"], "").await.failed(5, "edri events");
    used.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_passes_a_tunnel_as_it_is_however_slowly_it_is_read() {
    let used = used().await;
    let mut child = used.spawn(&["tunnel", "bytes.back", "--raw"]);
    let (mut input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
    let sent: Vec<u8> = (0..20_000_000_u32).map(|number| (number % 251) as u8).collect();
    let taken = Arc::new(AtomicUsize::new(0));
    let sending = {
        let (sent, taken) = (sent.clone(), Arc::clone(&taken));
        tokio::spawn(async move {
            for piece in sent.chunks(64 << 10) {
                input.write_all(piece).await?;
                taken.fetch_add(piece.len(), Ordering::Relaxed);
            }
            std::io::Result::Ok(())
        })
    };
    // Nobody reads: what is on the way is bounded, so at some time nothing more is taken though there is more.
    let (mut before, mut still) = (0, Instant::now());
    until("a time in which nothing is taken", || {
        let now = taken.load(Ordering::Relaxed);
        if now != before {
            (before, still) = (now, Instant::now());
        }
        assert!(now < sent.len(), "all of it was taken");
        now > 0 && still.elapsed() > Duration::from_millis(200)
    })
    .await;
    let mut reader = BufReader::new(output);
    let mut came = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut came).await.expect("read");
    sending.await.expect("runs").expect("written");
    assert!(came == sent, "{} bytes of {}", came.len(), sent.len());
    done(child).await.ok();
    used.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_aborts_a_tunnel() {
    let used = used().await;
    let mut child = used.spawn(&["tunnel", "sum.up"]);
    let mut input = child.stdin.take().expect("piped");
    input.write_all(b"5\n").await.expect("is read");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    assert_eq!(lines.next_line().await.expect("read").as_deref(), Some("5"));
    interrupt(&child);
    done(child).await.failed(130, "");
    until("its end", || used.node.topology().pending == 0).await;
    used.node.shutdown().await;
}
