//! The OpenAPI document, and strangers that read it.

use std::process::Command;

use edri::{Descriptor, Exposure, HttpRoute, Kind};
use serde_json::json;

use super::client::{address, get};
use super::{gateway, node};
use crate::python::environment;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_openapi_document_is_valid_and_events_declared_at_run_time_appear_at_once() {
    let node = node(gateway().route("GET /again/{region}", "api.risk")).await;
    let before = get(&node, "/openapi.json").await.json();
    assert!(before["paths"]["/events/api.risk"]["post"].is_object(), "{before}");
    assert!(before["paths"]["/again/{region}"]["get"].is_object(), "{before}");
    assert!(!before.to_string().contains("api.secret"), "what is not exposed is not told of");
    let late = Exposure { routes: vec![HttpRoute::new("GET /late").expect("a route")], ..Exposure::default() };
    let late = Descriptor::declare("api.late", Kind::Request).expect("a name").expose(late).build();
    node.bus().declare(late).await.expect("declares");
    let after = get(&node, "/openapi.json").await.json();
    assert!(after["paths"]["/late"]["get"].is_object(), "{after}");
    let file = std::env::temp_dir().join(format!("edri-openapi-{}.json", std::process::id()));
    std::fs::write(&file, after.to_string()).expect("is written");
    let mut check = Command::new(environment("python-gateway", "gateway"));
    let checked = check.args(["-m", "openapi_spec_validator"]).arg(&file).output().expect("python runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    std::fs::remove_file(file).expect("is removed");
    assert_eq!(get(&node, "/late").await.json()["code"], json!("no_handler"));
    let page = get(&node, "/docs").await;
    assert!(page.header("content-type").starts_with("text/html") && !page.body.windows(4).any(|at| at == b"//cd"));
    node.shutdown().await;
}

/// What the document says is what the gateway does, tried with many inputs, right ones and wrong ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tester_that_knows_only_the_document_finds_nothing_against_it() {
    let node = node(gateway()).await;
    let schemathesis = environment("python-gateway", "gateway").with_file_name("schemathesis");
    let url = format!("http://{}/openapi.json", address(&node));
    let mut command = Command::new(schemathesis);
    let checks = "not_a_server_error,content_type_conformance,response_schema_conformance,negative_data_rejection";
    command.args([
        "run",
        &url,
        "--max-examples",
        "25",
        "--checks",
        checks,
        "--no-color",
        "--seed",
        "20261122",
        "--suppress-health-check",
        "all",
    ]);
    let tried =
        tokio::task::spawn_blocking(move || command.current_dir(std::env::temp_dir()).output().expect("it runs"));
    let tried = tried.await.expect("ends");
    assert!(tried.status.success(), "{}", String::from_utf8_lossy(&tried.stdout));
    node.shutdown().await;
}
