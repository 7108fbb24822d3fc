//! Who may do what.

use std::path::PathBuf;
use std::process::Command;

use edri::prelude::*;
use edri::{Cors, Jwt, Node, Token};

use super::client::{Answer, address, ask};
use super::{AssessRisk, Model, gateway};
use crate::support::{does, started, within};

/// Who asks.
#[event(request, name = "who.am_i", response = Option<String>, expose)]
struct WhoAmI {}

/// A notification.
#[event(notification, name = "who.came", expose)]
struct Came {}

/// A node that tells callers who they are.
pub(super) async fn node(api: Api) -> Node {
    let who = does::<WhoAmI, _>(|_, cx| {
        let caller = cx.caller().map(str::to_owned);
        Box::pin(async move { Ok(caller) })
    });
    let who = Manager::new("who").worker(who).handles::<WhoAmI>();
    let came = does::<Came, _>(|_, _| Box::pin(async { Ok(()) }));
    let came = Manager::new("came").worker(came).handles::<Came>();
    let model = Manager::new("model").worker(|| Model).handles::<AssessRisk>();
    started(App::new("gate").manager(who).manager(came).manager(model).api(api)).await
}

/// A folder of a test, gone with it.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("edri-{name}-{}-{:x}", std::process::id(), fastrand::u64(..)));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    /// Writes a file whole or not at all.
    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let (path, new) = (self.0.join(name), self.0.join("new"));
        std::fs::write(&new, content).expect("written");
        std::fs::rename(new, &path).expect("renamed");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) async fn as_bearer(node: &Node, line: &str, token: &str) -> Answer {
    ask(node, line, &[("authorization", &format!("Bearer {token}"))], "{}").await
}

fn expect(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (status, &code.into()), "{answer:?}");
}

#[tokio::test]
async fn a_caller_may_do_what_its_token_says_and_a_worker_sees_who_it_is() {
    let (anna, ben) = (Token::random().expect("random"), Token::random().expect("random"));
    let access = Access::new()
        .token(&anna.hash(), "anna", Permissions::new().request("who.*"))
        .token(&ben.hash(), "ben", Permissions::new().publish("who.came"))
        .anonymous(Permissions::new().request("api.risk"));
    let node = node(gateway().access(access)).await;
    let who = "POST /events/who.am_i";
    assert_eq!(as_bearer(&node, who, anna.secret()).await.json(), "anna");
    expect(&as_bearer(&node, who, ben.secret()).await, 403, "forbidden");
    expect(&as_bearer(&node, "POST /events/who.came", anna.secret()).await, 403, "forbidden");
    assert_eq!(as_bearer(&node, "POST /events/who.came", ben.secret()).await.status, 202);
    let unknown = as_bearer(&node, who, Token::random().expect("random").secret()).await;
    expect(&unknown, 401, "unauthorized");
    assert_eq!(unknown.header("www-authenticate"), r#"Bearer error="invalid_token""#);
    let nobody = ask(&node, who, &[], "{}").await;
    expect(&nobody, 401, "unauthorized");
    assert_eq!(nobody.header("www-authenticate"), "Bearer");
    // What everybody may do, but not with a token that is not good.
    assert_eq!(ask(&node, "GET /risk/north", &[], "").await.status, 200);
    expect(&as_bearer(&node, "GET /risk/north", "x").await, 401, "unauthorized");
    // What is not exposed is not there, whoever asks.
    expect(&as_bearer(&node, "POST /events/edri.node.changed", anna.secret()).await, 403, "forbidden");
    node.shutdown().await;
}

#[tokio::test]
async fn nobody_outside_says_who_the_caller_is() {
    let node = node(gateway()).await;
    let who = "POST /events/who.am_i";
    expect(&ask(&node, who, &[("Edri-Caller", "admin")], "{}").await, 400, "invalid_headers");
    assert!(ask(&node, who, &[("authorization", "Bearer admin")], "{}").await.json().is_null());
    node.shutdown().await;
}

#[tokio::test]
async fn the_keys_of_signed_tokens_are_changed_while_the_node_runs() {
    let foreign = include_str!("../../api/src/access/tests/foreign.json");
    let foreign: serde_json::Value = serde_json::from_str(foreign).expect("JSON");
    let folder = Folder::new("keys");
    let set = |kid: &str| {
        let keys = foreign["keys"].as_array().expect("keys").iter().filter(|key| key["kid"] == kid);
        serde_json::json!({"keys": keys.collect::<Vec<_>>()}).to_string()
    };
    let token = |algorithm: &str| foreign["tokens"][algorithm].as_str().expect("a token");
    let path = folder.write("keys.json", &set("rsa"));
    let jwt = Jwt::jwks_file(path).permissions(Permissions::new().request("who.*"));
    let node = node(gateway().access(Access::new().jwt(jwt))).await;
    let who = "POST /events/who.am_i";
    assert_eq!(as_bearer(&node, who, token("RS256")).await.json(), "anna");
    expect(&as_bearer(&node, who, token("EdDSA")).await, 401, "unauthorized");
    folder.write("keys.json", &set("ed"));
    within("the new key", async { while as_bearer(&node, who, token("EdDSA")).await.status != 200 {} }).await;
    expect(&as_bearer(&node, who, token("RS256")).await, 401, "unauthorized");
    node.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_keeps_the_node_from_starting_and_says_what_to_do() {
    let start = async |api: Api| match App::new("gate").api(api).start().await {
        Ok(_) => panic!("it starts"),
        Err(error) => format!("{error:?} {error}"),
    };
    assert!(start(gateway().access(Access::new().token("x", "a", Permissions::new()))).await.contains("sha256:"));
    assert!(start(gateway().cors(Cors::new().origin("app.example"))).await.contains("https://app.example"));
    assert!(start(gateway().cors(Cors::any().credentials(true))).await.contains("list the origins"));
}

#[tokio::test]
async fn pages_of_other_origins_get_in_when_they_are_listed_and_not_otherwise() {
    let node = node(gateway().cors(Cors::new().origin("https://App.example").credentials(true))).await;
    let own = format!("http://{}", address(&node));
    let who = "POST /events/who.am_i";
    let from = async |origin: &str| ask(&node, who, &[("origin", origin)], "{}").await;
    let listed = from("https://app.example").await;
    assert_eq!(listed.status, 200);
    assert_eq!(listed.header("access-control-allow-origin"), "https://app.example");
    assert_eq!(listed.header("access-control-allow-credentials"), "true");
    assert_eq!(listed.header("vary"), "origin");
    let same = from(&own).await;
    assert_eq!((same.status.as_u16(), same.header("access-control-allow-origin")), (200, ""));
    for foreign in ["https://evil.example", "null", "http://app.example", "https://app.example.evil", "x"] {
        let refused = from(foreign).await;
        expect(&refused, 403, "forbidden_origin");
        assert_eq!(refused.header("access-control-allow-origin"), "", "{foreign}");
    }
    let preflight = |origin: &'static str| {
        [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization, content-type"),
        ]
    };
    let allowed = ask(&node, "OPTIONS /events/who.am_i", &preflight("https://app.example"), "").await;
    assert_eq!(allowed.status, 204);
    assert_eq!(allowed.header("access-control-allow-headers"), "authorization, content-type");
    assert!(allowed.header("access-control-allow-methods").contains("POST"));
    assert_eq!(allowed.header("access-control-max-age"), "600");
    let refused = ask(&node, "OPTIONS /events/who.am_i", &preflight("https://evil.example"), "").await;
    assert_eq!((refused.status.as_u16(), refused.header("access-control-allow-methods")), (403, ""));
    // Headers against sniffing and framing are on every answer.
    assert_eq!(refused.header("x-content-type-options"), "nosniff");
    node.shutdown().await;
}

#[tokio::test]
async fn curl_gets_in_with_a_token() {
    if Command::new("curl").arg("--version").output().is_err() {
        return;
    }
    let token = Token::random().expect("random");
    let node = node(gateway().access(Access::new().token(&token.hash(), "anna", Permissions::all()))).await;
    let url = format!("http://{}/events/who.am_i", address(&node));
    let curl = async |arguments: Vec<String>| {
        let url = url.clone();
        let run = move || Command::new("curl").args(["-sS", "-d", "{}", &url]).args(arguments).output();
        let output = within("curl", tokio::task::spawn_blocking(run)).await.expect("joins").expect("runs");
        String::from_utf8(output.stdout).expect("text")
    };
    let bearer = format!("Authorization: Bearer {}", token.secret());
    assert_eq!(curl(vec!["-H".into(), bearer.clone()]).await, "\"anna\"");
    assert_eq!(curl(vec!["--http2-prior-knowledge".into(), "-H".into(), bearer]).await, "\"anna\"");
    assert!(curl(Vec::new()).await.contains("\"code\":\"unauthorized\""));
    node.shutdown().await;
}
