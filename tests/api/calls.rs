//! Requests and notifications over HTTP.

use serde_json::json;

use super::client::{ask, get};
use super::{Quake, gateway, node};
use crate::support::within;

#[tokio::test]
async fn an_events_fields_come_from_path_query_body_header_and_cookie() {
    let node = node(gateway()).await;
    let said = async |line: &str, headers: &[(&str, &str)], body: &'static str| {
        let answer = ask(&node, line, headers, body).await;
        assert_eq!(answer.status, 200, "{line}: {answer:?}");
        answer.json()["said"].as_str().expect("a text").to_owned()
    };
    assert_eq!(said("GET /risk/North", &[], "").await, "North 0 [] None None None");
    assert_eq!(said("GET /risk/a%2Fb%20c", &[], "").await, "a/b c 0 [] None None None");
    let query = "GET /risk/north?depth=3&tags=a&tags=b%26&exact=true&unknown=1";
    assert_eq!(said(query, &[], "").await, r#"north 3 ["a", "b&"] Some(true) None None"#);
    let body = r#"{"region": "south", "depth": 7}"#;
    assert_eq!(said("POST /risk", &[], body).await, "south 7 [] None None None");
    assert_eq!(said("POST /events/api.risk", &[], body).await, "south 7 [] None None None");
    assert_eq!(said("POST /risk?depth=8", &[], body).await, "south 8 [] None None None");
    let headers = [("X-Tenant", "t1"), ("Cookie", "other=1; session=abc; last=2")];
    assert_eq!(said("GET /risk/x", &headers, "").await, r#"x 0 [] None Some("t1") Some("abc")"#);
    // From nowhere else.
    let forged = "POST /risk?session=evil&tenant=evil";
    let body = r#"{"region": "x", "session": "evil", "tenant": "evil"}"#;
    assert_eq!(said(forged, &[], body).await, "x 0 [] None None None");
    node.shutdown().await;
}

#[tokio::test]
async fn what_is_wrong_is_said_with_a_stable_code_and_by_field() {
    let node = node(gateway()).await;
    let check = async |line: &str, body: &'static str, status: u16, code: &str, field: Option<&str>| {
        let answer = ask(&node, line, &[], body).await;
        assert_eq!(answer.status, status, "{line}: {answer:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{line}");
        let problem = answer.json();
        assert_eq!(problem["code"], code, "{line}: {problem}");
        assert_eq!(problem["status"], status, "{line}");
        assert_eq!(problem["errors"][0]["field"].as_str(), field, "{line}: {problem}");
    };
    check("GET /risk/x?depth=deep", "", 400, "invalid_payload", Some("depth")).await;
    check("GET /risk/x?exact=1&exact=2", "", 400, "invalid_payload", Some("exact")).await;
    check("POST /risk", "{", 400, "invalid_payload", Some("")).await;
    check("POST /risk", "[1]", 400, "invalid_payload", Some("")).await;
    check("POST /risk", r#"{"depth": 1}"#, 400, "invalid_payload", Some("region")).await;
    check("POST /risk", r#"{"region": "x", "tags": [1]}"#, 400, "invalid_payload", Some("tags[0]")).await;
    check("GET /risk/atlantis", "", 404, "not_found", None).await;
    check("GET /risk/none", "", 500, "failed", None).await;
    check("GET /risk/odd", "", 422, "too_odd", None).await;
    check("GET /risk/panic", "", 502, "worker_lost", None).await;
    check("GET /nowhere", "", 404, "not_found", None).await;
    check("DELETE /risk/x", "", 405, "method_not_allowed", None).await;
    check("POST /events/api.secret", "", 404, "unknown_event", None).await;
    check("POST /events/edri.node.changed", "{}", 403, "forbidden", None).await;
    let media = ask(&node, "POST /risk", &[("content-type", "text/xml")], "<a/>").await;
    assert_eq!((media.status.as_u16(), &media.json()["code"]), (415, &json!("unsupported_media_type")));
    node.shutdown().await;
}

#[tokio::test]
async fn a_notification_is_accepted_and_reaches_its_subscribers() {
    let node = node(gateway()).await;
    let mut quakes = node.bus().subscribe::<Quake>().await.expect("subscribes");
    let answer = ask(&node, "POST /events/api.quake", &[], r#"{"region": "north", "magnitude": 4.5}"#).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["groups"]), (202, &json!(1)));
    let quake = within("the quake", quakes.next()).await.expect("comes");
    assert_eq!((&*quake.region, quake.magnitude), ("north", 4.5));
    assert_eq!(answer.json()["id"], quake.envelope().id().to_string());
    node.shutdown().await;
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_request() {
    let node = node(gateway()).await;
    let asking = tokio::time::timeout(std::time::Duration::from_millis(100), get(&node, "/risk/never"));
    assert!(asking.await.is_err(), "it is never answered");
    // The one worker is free again, long before the request's time-out.
    let answer = within("the next answer", get(&node, "/risk/x")).await;
    assert_eq!(answer.status, 200);
    node.shutdown().await;
}

#[tokio::test]
async fn a_node_says_whether_it_lives_and_is_ready() {
    let node = node(gateway()).await;
    assert_eq!(get(&node, "/healthz").await.status, 200);
    assert_eq!(get(&node, "/readyz").await.status, 200);
    node.shutdown().await;
}
