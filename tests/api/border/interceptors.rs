//! Code that sees every event, and layers.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::HeaderValue;
use edri::prelude::*;
use edri::{Caller, Delivered, Incoming, Interceptor, Node, Outgoing, Token};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::super::client::{address, ask};
use super::super::feeds::Feed;
use super::super::websocket::socket::Socket;

/// What is asked is answered with itself.
#[event(request, name = "watched.echo", response = Value, expose)]
struct Echo {
    #[validate(length(max = 10))]
    text: String,
}

/// Somebody said something.
#[event(notification, name = "watched.said", key = topic, expose)]
struct Said {
    topic: String,
    text: String,
}

/// Numbers go up.
#[event(tunnel, name = "watched.sum", up = u32, down = (), result = u32, http = "POST /sum")]
struct Sum {}

struct Parrot;

impl Worker for Parrot {}

impl Handle<Echo> for Parrot {
    async fn handle(&mut self, echo: &Echo, cx: &mut Context) -> Result<Value, Failure> {
        if echo.text == "fail" {
            return Err(Failure::new("not_found", "no such text"));
        }
        Ok(json!({"text": echo.text, "tenant": cx.envelope().and_then(|event| event.header("tenant"))}))
    }
}

impl Handle<Sum> for Parrot {
    async fn handle(&mut self, _: &Sum, cx: &mut Context) -> Result<u32, Failure> {
        let mut tunnel = cx.accept::<Sum>()?;
        let mut sum = 0;
        while let Some(number) = tunnel.recv().await? {
            sum += number;
        }
        Ok(sum)
    }
}

/// Writes down what it sees; refuses, rewrites or lets pass as the text says.
#[derive(Clone, Default)]
struct Watch {
    seen: Arc<Mutex<Vec<String>>>,
}

impl Watch {
    fn write(&self, line: String) {
        self.seen.lock().push(line);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock())
    }
}

fn name(caller: &Caller) -> &str {
    caller.name().unwrap_or("-")
}

impl Interceptor for Watch {
    async fn before(&self, event: &mut Incoming) -> Result<(), Failure> {
        self.write(format!("{:?} {} {}", event.way(), name(event.caller()), event.name()));
        event.set_header("tenant", "t1")?;
        let Ok(mut fields) = event.read::<Value>() else { return Ok(()) };
        match fields["text"].as_str() {
            Some("secret") => Err(Failure::new("forbidden", "that is a secret")),
            Some("rewrite") => {
                fields["text"] = json!("rewritten");
                event.write(&fields)
            }
            Some("lengthen") => {
                fields["text"] = json!("much too long");
                event.write(&fields)
            }
            _ => Ok(()),
        }
    }

    async fn after(&self, event: &Incoming, outcome: &mut Outgoing<'_>) {
        let said = match (outcome.code(), outcome.groups()) {
            (Some(code), _) => code.to_owned(),
            (None, Some(groups)) => format!("{groups} groups"),
            (None, None) => format!("{}", outcome.read::<Value>().expect("a response")),
        };
        self.write(format!("after {} {said}", event.name()));
        let Ok(fields) = event.read::<Value>() else { return };
        match fields["text"].as_str() {
            Some("keep") => outcome.refuse(Failure::new("gone", "it is gone")),
            Some("fail") => outcome.respond(&json!("never mind")).expect("is written"),
            _ => {}
        }
    }

    fn deliver(&self, event: &mut Delivered<'_>) -> Result<(), Failure> {
        let said = event.event::<Said>()?;
        self.write(format!("{:?} {} hears {}", event.way(), name(event.caller()), said.text));
        let (topic, text) = (said.topic.clone(), said.text.clone());
        match &*text {
            "hush" => Err(Failure::new("forbidden", "not for you")),
            "name" => event.write(&Said { topic, text: "***".to_owned() }),
            _ => Ok(()),
        }
    }
}

async fn node(watch: &Watch) -> Node {
    let parrot = Manager::new("parrot").worker(|| Parrot).handles::<Echo>().handles::<Sum>();
    let everything = Permissions::new().publish(">").request(">").subscribe(">");
    let access = Access::new().token(&Token::hash_of("secret-of-ada"), "ada", everything.clone()).anonymous(everything);
    let api = Api::bind("127.0.0.1:0").event::<Said>().access(access).intercept(watch.clone());
    App::new("gate").manager(parrot).api(api).start().await.expect("starts")
}

/// The same over HTTP and over WebSocket: a status and the code or response.
async fn both(node: &Node, text: &str, status: u16, code_or_value: Value) {
    let payload = json!({"text": text});
    let answer = ask(node, "POST /events/watched.echo", &[], payload.to_string()).await;
    assert_eq!(answer.status, status, "{answer:?}");
    let json = answer.json();
    let code = |of: &Value| of.get("code").cloned().unwrap_or_else(|| of.clone());
    assert_eq!(code(&json), code_or_value, "{text}");
    let mut socket = Socket::to(node).await;
    socket.send(json!({"request": {"id": 1, "event": "watched.echo", "payload": payload}})).await;
    let response = socket.response(1).await;
    let got = ["failure", "error"].iter().find_map(|kind| response[kind].get("code")).unwrap_or(&response["value"]);
    assert_eq!(*got, code_or_value, "{text}: {response}");
}

#[tokio::test]
async fn an_interceptor_sees_every_event_and_its_caller_before_and_after_whatever_the_way_in() {
    let watch = Watch::default();
    let node = node(&watch).await;
    both(&node, "hello", 200, json!({"text": "hello", "tenant": "t1"})).await;
    let answered = r#"after watched.echo {"tenant":"t1","text":"hello"}"#;
    let expect = ["Http - watched.echo", answered, "WebSocket - watched.echo", answered];
    assert_eq!(watch.take(), expect);
    // Refused before, rewritten before and then checked, refused after, answered after.
    both(&node, "secret", 403, json!("forbidden")).await;
    both(&node, "rewrite", 200, json!({"text": "rewritten", "tenant": "t1"})).await;
    both(&node, "lengthen", 400, json!("invalid_payload")).await;
    both(&node, "keep", 410, json!("gone")).await;
    both(&node, "fail", 200, json!("never mind")).await;
    assert!(watch.take().contains(&"after watched.echo not_found".to_owned()));
    // Who it is.
    let headers = [("authorization", "Bearer secret-of-ada")];
    let said = r#"{"topic": "t", "text": "x"}"#;
    let answer = ask(&node, "POST /events/watched.said", &headers, said).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(watch.take(), ["Http ada watched.said", "after watched.said 0 groups"]);
    let answer = ask(&node, "POST /events/watched.said", &[], r#"{"topic": "t", "text": "secret"}"#).await;
    assert_eq!((answer.status.as_u16(), answer.json()["code"].clone()), (403, json!("forbidden")));
    watch.take();
    // Tunnels, when they have ended.
    let answer = ask(&node, "POST /sum", &[], "1\n2\n3\n").await;
    assert_eq!(answer.json(), json!(6), "{answer:?}");
    assert_eq!(watch.take(), ["Http - watched.sum", "after watched.sum 6"]);
    node.shutdown().await;
}

#[tokio::test]
async fn an_interceptor_sees_what_subscribers_are_to_have_over_both_ways() {
    let watch = Watch::default();
    let node = node(&watch).await;
    let mut feed = Feed::open(&node, "event=watched.said&access_token=secret-of-ada", None).await;
    let (mut socket, _) = Socket::greet(address(&node), json!({"version": 1, "role": "client"})).await;
    socket.send(json!({"subscribe": {"id": 1, "select": "watched.said"}})).await;
    socket.response(1).await;
    for text in ["hush", "name", "open"] {
        let said = Said { topic: "t".to_owned(), text: text.to_owned() };
        node.bus().publish(said).await.expect("is published");
    }
    for expect in ["***", "open"] {
        assert_eq!(feed.next().await.data, json!({"topic": "t", "text": expect}));
        let frame = socket.next().await;
        assert_eq!(frame["publish"]["payload"], json!({"topic": "t", "text": expect}), "{frame}");
        assert_eq!(frame["publish"]["key"], "t", "{frame}");
    }
    let seen = watch.take();
    for text in ["hush", "name", "open"] {
        for who in ["ServerSentEvents ada", "WebSocket -"] {
            assert!(seen.contains(&format!("{who} hears {text}")), "{who} {text}: {seen:?}");
        }
    }
    node.shutdown().await;
}

#[tokio::test]
async fn tower_layers_stand_around_what_the_gateway_answers_the_last_one_outside() {
    let mark = |mark: &'static str| {
        tower::util::MapResponseLayer::new(move |mut response: axum::response::Response| {
            let headers = response.headers_mut();
            let before = headers.get("x-layers").map_or("", |value| value.to_str().expect("a text")).to_owned();
            headers.insert("x-layers", HeaderValue::from_str(&format!("{before}{mark}")).expect("a value"));
            response
        })
    };
    let who = tower::util::MapRequestLayer::new(|mut request: Request| {
        let known = request.extensions().get::<Caller>().is_some();
        request.headers_mut().insert("x-tenant", HeaderValue::from_static(if known { "known" } else { "nobody" }));
        request
    });
    let node = super::super::node(super::super::gateway().layer(mark("a")).layer(mark("b")).layer(who)).await;
    let answer = ask(&node, "GET /risk/north", &[], "").await;
    assert_eq!(answer.header("x-layers"), "ab");
    assert_eq!(answer.json()["said"], r#"north 0 [] None Some("known") None"#);
    assert_eq!(ask(&node, "GET /nothing/here", &[], "").await.header("x-layers"), "ab");
    node.shutdown().await;
}
