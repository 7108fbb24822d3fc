//! People who log in with a browser.

use std::time::Duration;

use edri::prelude::*;
use edri::{Node, Sessions, Store};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::access::Folder;
use super::client::{Answer, address, ask};
use super::gateway;
use crate::nodes::Cluster;
use crate::support::{does, started, until, within};

/// Logs in whoever knows the word, in the role of its name.
#[event(request, name = "door.enter", response = Http<Option<String>>, http = "POST /enter", then = "/")]
struct Enter {
    name: String,
    word: String,
}

#[event(request, name = "door.leave", response = Http<Option<String>>, http = "POST /leave", then = "/")]
struct Leave {
    #[serde(default)]
    everywhere: bool,
}

/// Says who asks, and in which session.
#[event(request, name = "door.who", response = (Option<String>, Option<String>), http = "GET /who", http = "POST /who")]
struct Who {}

/// For agents.
#[event(request, name = "desk.close", response = u32, http = "POST /close")]
struct Close {}

/// Somebody came in.
#[event(notification, name = "door.came", expose)]
struct Came {}

fn access() -> Access {
    Access::new()
        .role("agent", Permissions::new().request("desk.*"))
        .role("guest", Permissions::new())
        .anonymous(Permissions::new().request("door.*").subscribe("door.*"))
}

fn app(name: &str, sessions: Sessions) -> App {
    let enter = does::<Enter, _>(|enter, _| {
        let answer = match &*enter.word {
            "sesame" => Ok(Http::new(None).log_in(&enter.name, if enter.name == "anna" { "agent" } else { "guest" })),
            "king" => Ok(Http::new(None).log_in(&enter.name, "king")),
            _ => Err(Failure::new("invalid", "that is not the word")),
        };
        Box::pin(async move { answer })
    });
    let leave = does::<Leave, _>(|leave, _| {
        let answer = Http::new(None);
        let answer = if leave.everywhere { answer.log_out_everywhere() } else { answer.log_out() };
        Box::pin(async move { Ok(answer) })
    });
    let who = does::<Who, _>(|_, cx| {
        let who = (cx.caller().map(str::to_owned), cx.session().map(str::to_owned));
        Box::pin(async move { Ok(who) })
    });
    App::new(name)
        .manager(Manager::new("enter").worker(enter).handles::<Enter>())
        .manager(Manager::new("leave").worker(leave).handles::<Leave>())
        .manager(Manager::new("who").worker(who).handles::<Who>())
        .manager(Manager::new("desk").worker(does::<Close, _>(|_, _| Box::pin(async { Ok(1) }))).handles::<Close>())
        .api(gateway().event::<Came>().access(access()).sessions(sessions))
}

async fn node(sessions: Sessions) -> Node {
    started(app("gate", sessions).manager(Store::memory().namespace("sessions"))).await
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

async fn form(node: &Node, path: &str, cookie: &str, fields: &str) -> Answer {
    ask(node, &format!("POST {path}"), &[FORM, ("cookie", cookie)], fields.to_owned()).await
}

/// The cookie that an answer sets, as a browser sends it.
fn cookie(answer: &Answer) -> String {
    answer.header("set-cookie").split(';').next().unwrap_or_default().to_owned()
}

async fn log_in(node: &Node, name: &str) -> String {
    let answer = form(node, "/enter", "", &format!("name={name}&word=sesame")).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (303, "/"), "{answer:?}");
    cookie(&answer)
}

async fn who(node: &Node, cookie: &str) -> Answer {
    ask(node, "GET /who", &[("cookie", cookie)], "").await
}

/// The name that the worker sees.
async fn name(node: &Node, cookie: &str) -> Option<String> {
    let answer = who(node, cookie).await;
    answer.json()[0].as_str().map(str::to_owned)
}

async fn token(node: &Node, cookie: &str) -> String {
    let told = ask(node, "GET /csrf", &[("cookie", cookie)], "").await;
    told.json()["token"].as_str().expect("a token").to_owned()
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.json()["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_worker_logs_somebody_in_and_the_role_says_what_may_be_done() {
    let node = node(Sessions::new()).await;
    let wrong = form(&node, "/enter", "", "name=anna&word=x").await;
    assert_eq!((code(&wrong).0, wrong.header("set-cookie")), (400, ""));
    let answer = form(&node, "/enter", "", "name=anna&word=sesame").await;
    let set = answer.header("set-cookie");
    assert!(
        set.starts_with("edri-session=") && set.ends_with("; Max-Age=86400; Path=/; HttpOnly; SameSite=Lax"),
        "{set}"
    );
    assert_eq!((answer.header("cache-control"), answer.headers.get("edri-log-in")), ("no-store", None));
    let (anna, ben) = (cookie(&answer), log_in(&node, "ben").await);
    assert_eq!((name(&node, &anna).await.as_deref(), name(&node, &ben).await.as_deref()), (Some("anna"), Some("ben")));
    let session = who(&node, &anna).await.json()[1].as_str().expect("a session").to_owned();
    assert!(!anna.contains(&session), "a worker knows nothing that opens");
    let close = async |cookie: &str| {
        let token = token(&node, cookie).await;
        ask(&node, "POST /close", &[("cookie", cookie), ("x-csrf-token", &token)], "{}").await
    };
    assert_eq!(close(&anna).await.status, 200);
    assert_eq!(code(&close(&ben).await), (403, "forbidden".to_owned()));
    assert_eq!(code(&form(&node, "/close", "", "").await), (401, "unauthorized".to_owned()));
    let king = form(&node, "/enter", "", "name=anna&word=king").await;
    assert_eq!((code(&king), king.header("set-cookie")), ((502, "invalid_answer".to_owned()), ""));
    node.shutdown().await;
}

#[tokio::test]
async fn cookies_of_strangers_are_none_and_are_taken_away() {
    let node = node(Sessions::new()).await;
    let anna = log_in(&node, "anna").await;
    let other = super::log_ins::node(Sessions::new()).await;
    let foreign = log_in(&other, "anna").await;
    let value = anna.strip_prefix("edri-session=").expect("a value");
    let forged = format!("edri-session={}{}", if value.starts_with('A') { 'B' } else { 'A' }, &value[1..]);
    let long = format!("edri-session={}", "a".repeat(10_000));
    let doubled = format!("{anna}; {anna}");
    for stranger in [&*forged, &foreign, &long, &doubled, "edri-session=", "edri-session=x.y", "edri-session=\"\""] {
        let answer = who(&node, stranger).await;
        assert_eq!((answer.status.as_u16(), &answer.json()[0]), (200, &serde_json::Value::Null), "{stranger}");
        assert!(answer.header("set-cookie").starts_with("edri-session=; Max-Age=0; Path=/"), "{answer:?}");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    // Also where nothing is answered but an error.
    assert!(ask(&node, "GET /nowhere", &[("cookie", &forged)], "").await.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(who(&node, "session=x; a=b").await.header("set-cookie"), "");
    assert_eq!(name(&node, &anna).await.as_deref(), Some("anna"));
    other.shutdown().await;
    node.shutdown().await;
}

#[tokio::test]
async fn what_changes_something_needs_the_token_of_its_session() {
    let node = node(Sessions::new()).await;
    let (anna, ben) = (log_in(&node, "anna").await, log_in(&node, "ben").await);
    let (hers, his) = (token(&node, &anna).await, token(&node, &ben).await);
    let post = async |headers: &[(&str, &str)], body: &str| {
        let headers: Vec<_> = [("cookie", &*anna)].iter().chain(headers).copied().collect();
        code(&ask(&node, "POST /who", &headers, body.to_owned()).await)
    };
    let (good, refused) = ((200, String::new()), (403, "csrf".to_owned()));
    assert_eq!(post(&[], "{}").await, refused);
    assert_eq!(post(&[("x-csrf-token", &his)], "{}").await, refused);
    assert_eq!(post(&[("x-csrf-token", &hers)], "{}").await, good);
    assert_eq!(post(&[("x-csrf-token", &hers), ("sec-fetch-site", "same-origin")], "{}").await, good);
    for site in ["cross-site", "same-site", "x"] {
        assert_eq!(post(&[("x-csrf-token", &hers), ("sec-fetch-site", site)], "{}").await, refused);
    }
    assert_eq!(post(&[FORM], "_csrf=x").await, refused);
    assert_eq!(post(&[FORM], &format!("_csrf={hers}")).await, good);
    let foreign = [("x-csrf-token", &*hers), ("origin", "https://evil.example")];
    assert_eq!(post(&foreign, "{}").await, (403, "forbidden_origin".to_owned()));
    // Nobody's page can have a browser say who it is, and who has no session changes nothing in its name.
    assert_eq!(code(&ask(&node, "POST /who", &[("sec-fetch-site", "cross-site")], "{}").await), good);
    node.shutdown().await;
}

#[tokio::test]
async fn who_logs_in_again_has_another_session_and_who_logs_out_has_none_anywhere() {
    let folder = Folder::new("sessions");
    let secret = folder.write("secret", "0123456789abcdef0123456789abcdef");
    let sessions = || Sessions::new().secret_file(&secret);
    let node = node(sessions()).await;
    let first = log_in(&node, "anna").await;
    let again =
        form(&node, "/enter", &first, &format!("name=anna&word=sesame&_csrf={}", token(&node, &first).await)).await;
    let second = cookie(&again);
    assert_ne!(first, second);
    assert_eq!((name(&node, &first).await, name(&node, &second).await.as_deref()), (None, Some("anna")));
    let elsewhere = log_in(&node, "anna").await;
    let out = form(&node, "/leave", &second, &format!("_csrf={}", token(&node, &second).await)).await;
    assert!(out.header("set-cookie").starts_with("edri-session=; Max-Age=0"), "{out:?}");
    assert_eq!((name(&node, &second).await, name(&node, &elsewhere).await.as_deref()), (None, Some("anna")));
    let (third, ben) = (log_in(&node, "anna").await, log_in(&node, "ben").await);
    let fields = format!("everywhere=on&_csrf={}", token(&node, &third).await);
    form(&node, "/leave", &third, &fields).await;
    assert_eq!((name(&node, &third).await, name(&node, &elsewhere).await), (None, None));
    assert_eq!(name(&node, &ben).await.as_deref(), Some("ben"), "who has another name stays");
    node.shutdown().await;
}

/// Waits until a WebSocket ends; what it was told.
async fn ending(socket: &mut tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>) -> String {
    within("the end of a WebSocket", async {
        let mut told = String::new();
        while let Some(Ok(message)) = socket.next().await {
            told += message.to_text().unwrap_or_default();
        }
        told
    })
    .await
}

async fn open(node: &Node, cookie: &str) -> tokio_tungstenite::WebSocketStream<tokio::net::TcpStream> {
    use futures_util::SinkExt;
    let mut request = format!("ws://{}/ws", address(node)).into_client_request().expect("a request");
    request.headers_mut().insert("cookie", cookie.parse().expect("a header"));
    let stream = tokio::net::TcpStream::connect(address(node)).await.expect("connects");
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.expect("upgrades");
    let hello = r#"{"hello": {"version": 1, "role": "client"}}"#;
    socket.send(hello.into()).await.expect("sent");
    let welcome = within("a welcome", socket.next()).await.expect("a frame").expect("read");
    assert!(welcome.to_text().expect("text").contains("welcome"), "{welcome:?}");
    socket
}

#[tokio::test]
async fn a_log_out_ends_what_is_open() {
    let node = node(Sessions::new()).await;
    let (anna, ben) = (log_in(&node, "anna").await, log_in(&node, "ben").await);
    let mut hers = open(&node, &anna).await;
    let mut his = open(&node, &ben).await;
    form(&node, "/leave", &anna, &format!("_csrf={}", token(&node, &anna).await)).await;
    let told = ending(&mut hers).await;
    assert!(told.contains("unauthorized") && told.contains("log in again"), "{told}");
    let mut feed = tokio::net::TcpStream::connect(address(&node)).await.expect("connects");
    let head = format!(
        "GET /subscribe?event=door.came HTTP/1.1\r\nhost: localhost\r\ncookie: {ben}\r\nconnection: close\r\n\r\n"
    );
    feed.write_all(head.as_bytes()).await.expect("sent");
    let mut begin = [0; 12];
    within("the feed", feed.read_exact(&mut begin)).await.expect("read");
    assert_eq!(&begin, b"HTTP/1.1 200");
    form(&node, "/leave", &ben, &format!("_csrf={}", token(&node, &ben).await)).await;
    ending(&mut his).await;
    within("the end of a feed", feed.read_to_end(&mut Vec::new())).await.expect("read");
    node.shutdown().await;
}

#[tokio::test]
async fn a_session_that_is_not_used_ends_and_one_that_is_used_ends_too() {
    let node = node(Sessions::new().idle(Duration::from_millis(1500)).lifetime(Duration::from_secs(4))).await;
    let (idle, used) = (log_in(&node, "ben").await, log_in(&node, "anna").await);
    let mut socket = open(&node, &idle).await;
    let began = std::time::Instant::now();
    let mut idled = None;
    let mut ended = None;
    while ended.is_none() && began.elapsed() < Duration::from_secs(15) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if name(&node, &used).await.is_none() {
            ended = Some(began.elapsed());
        }
        if idled.is_none() && began.elapsed() > Duration::from_millis(2600) {
            idled = Some(name(&node, &idle).await);
        }
    }
    assert_eq!(idled, Some(None), "it was idle for more than its time");
    let ended = ended.expect("it ends").as_secs_f64();
    assert!((3.5..8.0).contains(&ended), "{ended} s: it was used all the time");
    ending(&mut socket).await;
    node.shutdown().await;
}

#[tokio::test]
async fn without_its_store_nobody_is_let_in_or_taken_for_a_stranger() {
    let node = started(app("gate", Sessions::new().namespace("nowhere"))).await;
    let answer = form(&node, "/enter", "", "name=anna&word=sesame").await;
    assert_eq!((code(&answer), answer.header("set-cookie")), ((503, "sessions_unavailable".to_owned()), ""));
    assert_eq!(who(&node, "").await.status, 200);
    node.shutdown().await;
}

#[tokio::test]
async fn sessions_that_cannot_be_keep_the_node_from_starting() {
    let folder = Folder::new("sessions");
    let short = folder.write("short", "abc");
    for (sessions, says) in [
        (Sessions::new().secret_file(short), "openssl rand"),
        (Sessions::new().secret_file("/nowhere/secret"), "/nowhere/secret"),
        (Sessions::new().namespace("a.b"), "`a.b`"),
        (Sessions::new().idle(Duration::ZERO), "more than 0"),
    ] {
        assert!(sessions.check().is_err());
        let started = App::new("gate").api(gateway().sessions(sessions)).start().await;
        let Err(error) = started else { panic!("it starts") };
        assert!(format!("{error} {error:?}").contains(says), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_logs_out_at_one_gateway_is_out_at_another_at_once() {
    let folder = Folder::new("sessions");
    let secret = folder.write("secret", "0123456789abcdef0123456789abcdef");
    let sessions = || Sessions::new().secret_file(&secret);
    let gate = || gateway().access(access()).sessions(sessions());
    let leave = does::<Leave, _>(|_, _| Box::pin(async { Ok(Http::new(None).log_out()) }));
    let enter = does::<Enter, _>(|enter, _| {
        let answer = Http::new(None).log_in(&enter.name, "agent");
        Box::pin(async move { Ok(answer) })
    });
    let who = does::<Who, _>(|_, cx| {
        let name = cx.caller().map(str::to_owned);
        Box::pin(async move { Ok((name, None)) })
    });
    let cluster = Cluster::new();
    let store = Store::memory().namespace("sessions");
    let (pair, _proxy) = cluster
        .apart(
            74,
            |app, connector| {
                app.connector(connector)
                    .manager(store)
                    .manager(Manager::new("enter").worker(enter).handles::<Enter>())
                    .manager(Manager::new("leave").worker(leave).handles::<Leave>())
                    .manager(Manager::new("who").worker(who).handles::<Who>())
                    .api(gate())
            },
            |app, connector| app.connector(connector).api(gate()),
        )
        .await;
    let (one, other) = (&pair.centre, &pair.sensor);
    until("the events of the other node", || {
        let names = other.bus().events();
        ["door.leave", "door.who", "store.sessions.get"]
            .iter()
            .all(|name| names.iter().any(|event| *event.name() == **name))
    })
    .await;
    let anna = log_in(one, "anna").await;
    assert_eq!(name(other, &anna).await.as_deref(), Some("anna"), "both know the session");
    let mut socket = open(other, &anna).await;
    let began = std::time::Instant::now();
    form(one, "/leave", &anna, &format!("_csrf={}", token(other, &anna).await)).await;
    assert_eq!(name(other, &anna).await, None);
    ending(&mut socket).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}: it was told", began.elapsed());
    pair.end().await;
}
