//! `top` without a terminal, and `bench`.

use serde_json::json;

use crate::node::used;

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
