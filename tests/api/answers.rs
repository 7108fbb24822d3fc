//! What answers look like: status and headers of the worker's choice, encodings, files.

use std::fs;

use bytes::Bytes;
use edri::prelude::*;
use serde_json::json;

use super::client::{ask, get};
use super::{gateway, node};

#[event(request, name = "answer.order", response = Http<Option<Order>>, http = "POST /orders", http = "GET /orders/{id}")]
struct AskOrder {
    id: u32,
}

#[data]
struct Order {
    id: u32,
    text: String,
}

#[event(request, name = "answer.page", response = Http<Bytes>, http = "GET /page")]
struct Page {}

struct Orders;

impl Worker for Orders {}

impl Handle<AskOrder> for Orders {
    async fn handle(&mut self, ask: &AskOrder, _: &mut Context) -> Result<Http<Option<Order>>, Failure> {
        let id = ask.id;
        let order = |text: String| Some(Order { id, text });
        Ok(match id {
            1 => Http::created("/orders/1", order("made".to_owned())).cookie("seen", "1").cookie("too", "2; Secure"),
            2 => Http::redirect("/orders/1"),
            3 => Http::new(None).status(204),
            4 => Http::new(None).status(99),
            5 => Http::new(None).header("content-length", "3"),
            6 => Http::new(order("x".repeat(10_000))).header("cache-control", "max-age=60"),
            _ => Http::new(None),
        })
    }
}

impl Handle<Page> for Orders {
    async fn handle(&mut self, _: &Page, _: &mut Context) -> Result<Http<Bytes>, Failure> {
        Ok(Http::new(Bytes::from_static(b"<p>\xc3\xa9</p>")).header("content-type", "text/html; charset=utf-8"))
    }
}

async fn orders() -> edri::Node {
    let orders = Manager::new("orders").worker(|| Orders).handles::<AskOrder>().handles::<Page>();
    App::new("orders").manager(orders).api(gateway()).start().await.expect("starts")
}

#[tokio::test]
async fn a_worker_chooses_status_and_headers() {
    let node = orders().await;
    let made = ask(&node, "POST /orders", &[], r#"{"id": 1}"#).await;
    assert_eq!((made.status.as_u16(), made.header("location")), (201, "/orders/1"));
    assert_eq!(made.json(), json!({"id": 1, "text": "made"}));
    let cookies: Vec<_> =
        made.headers.get_all("set-cookie").iter().map(|value| value.to_str().expect("text")).collect();
    let flags = "HttpOnly; SameSite=Lax; Path=/";
    assert_eq!(cookies, [format!("seen=1; {flags}"), format!("too=2; Secure; {flags}")]);
    let moved = get(&node, "/orders/2").await;
    assert_eq!((moved.status.as_u16(), moved.header("location"), &*moved.body), (303, "/orders/1", &b""[..]));
    let nothing = get(&node, "/orders/3").await;
    assert_eq!((nothing.status.as_u16(), &*nothing.body), (204, &b""[..]));
    for wrong in ["/orders/4", "/orders/5"] {
        let answer = get(&node, wrong).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (502, &json!("invalid_answer")), "{wrong}");
    }
    let page = get(&node, "/page").await;
    assert_eq!((page.header("content-type"), &*page.body), ("text/html; charset=utf-8", "<p>é</p>".as_bytes()));
    // In the cluster it is a value like any other.
    let order = node.bus().request(AskOrder { id: 1 }).await.expect("answers");
    assert_eq!((order.status, order.body.map(|order| order.text).as_deref()), (201, Some("made")));
    node.shutdown().await;
}

#[tokio::test]
async fn head_and_options_are_answered_from_the_routes() {
    let node = orders().await;
    let (whole, head) = (get(&node, "/orders/6").await, ask(&node, "HEAD /orders/6", &[], "").await);
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    for name in ["content-length", "content-type", "cache-control"] {
        assert_eq!(head.header(name), whole.header(name), "{name}");
    }
    let options = ask(&node, "OPTIONS /orders/6", &[], "").await;
    assert_eq!((options.status.as_u16(), options.header("allow")), (204, "GET, HEAD, OPTIONS"));
    let wrong = get(&node, "/events/answer.order").await;
    assert_eq!((wrong.status.as_u16(), wrong.header("allow")), (405, "OPTIONS, POST"));
    assert_eq!(wrong.json()["code"], "method_not_allowed");
    node.shutdown().await;
}

#[tokio::test]
async fn json_and_messagepack_are_negotiated_in_both_directions() {
    let node = node(gateway()).await;
    let ask_in = edri::Encoding::MessagePack.encode(&json!({"region": "north", "depth": 2})).expect("encodes");
    let headers = [("content-type", "application/vnd.msgpack"), ("accept", "text/html;q=0.9, application/msgpack")];
    let answer = ask(&node, "POST /risk", &headers, ask_in).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/vnd.msgpack"));
    let risk: serde_json::Value = edri::Encoding::MessagePack.decode(&answer.body).expect("decodes");
    assert_eq!(risk["said"], "north 2 [] None None None");
    let refused = ask(&node, "GET /risk/x", &[("accept", "image/png")], "").await;
    assert_eq!(refused.status.as_u16(), 406);
    node.shutdown().await;
}

#[tokio::test]
async fn long_texts_are_compressed_for_those_who_say_so() {
    let node = orders().await;
    let plain = get(&node, "/orders/6").await;
    let packed = ask(&node, "GET /orders/6", &[("accept-encoding", "gzip")], "").await;
    assert_eq!((plain.header("content-encoding"), packed.header("content-encoding")), ("", "gzip"));
    assert!(packed.body.len() * 10 < plain.body.len(), "{} bytes of {}", packed.body.len(), plain.body.len());
    let short = ask(&node, "POST /orders", &[("accept-encoding", "gzip")], r#"{"id": 1}"#).await;
    assert_eq!(short.header("content-encoding"), "", "not worth it");
    node.shutdown().await;
}

#[tokio::test]
async fn files_are_served_where_no_event_has_a_route_and_nothing_above_their_folder() {
    let folder = std::env::temp_dir().join(format!("edri-files-{}", std::process::id()));
    fs::create_dir_all(folder.join("public/a")).expect("is made");
    fs::write(folder.join("secret.txt"), "secret").expect("is written");
    fs::write(folder.join("public/index.html"), "<p>home</p>").expect("is written");
    fs::write(folder.join("public/a/b.js"), "let b").expect("is written");
    let node = node(gateway().files(folder.join("public"))).await;
    let home = get(&node, "/").await;
    assert_eq!(
        (home.status.as_u16(), &*home.body, home.header("content-type")),
        (200, &b"<p>home</p>"[..], "text/html")
    );
    assert_eq!(&*get(&node, "/a/b.js").await.body, b"let b");
    assert_eq!(ask(&node, "GET /a/b.js", &[("range", "bytes=1-2")], "").await.body, "et");
    assert_eq!(get(&node, "/risk/x").await.status, 200, "an event's route goes before");
    for outside in ["/../secret.txt", "/%2e%2e/secret.txt", "/a/..%2f..%2f..%2fsecret.txt", "/a/../../secret.txt"] {
        let answer = get(&node, outside).await;
        assert_eq!(answer.status, 404, "{outside}: {answer:?}");
    }
    node.shutdown().await;
    fs::remove_dir_all(folder).expect("is removed");
}

#[tokio::test]
async fn a_gateway_that_cannot_be_is_refused_with_what_to_do() {
    let start = async |api: Api| {
        let error = App::new("refused").api(api).start().await.expect_err("does not start");
        error.to_string()
    };
    assert!(start(Api::bind("localhost")).await.contains("write it like `127.0.0.1:8080`"));
    assert!(start(gateway().route("FETCH /x", "a.b")).await.contains("the method is GET"));
    assert!(start(gateway().expose("a..b")).await.contains("empty segment"));
    assert!(start(gateway().files("/no/such/folder")).await.contains("there is no folder"));
    let node = App::new("first").api(gateway()).start().await.expect("starts");
    let taken = Api::bind(node.api_address().expect("listens").to_string());
    assert!(start(taken).await.contains("cannot listen on"));
    node.shutdown().await;
}
