//! Rules of fields, for every way in.

use edri::prelude::*;
use edri::{DescriptorRef, Kind, Node, Schemas};
use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::super::client::{address, ask, get};
use super::super::websocket::socket::Socket;
use crate::support::within;

const SKU: &str = "^[A-Z]{2}-[0-9]+$";

/// An order, with rules of every sort.
#[event(request, name = "border.order", response = String, http = "POST /orders")]
#[validate(custom(is_worth_it))]
struct Order {
    #[validate(length(min = 1, max = 20))]
    title: String,
    #[validate(email)]
    mail: Option<String>,
    #[validate(url)]
    #[serde(default)]
    page: Option<String>,
    #[serde(default)]
    #[validate(length(min = 1, max = 2), inner(length(max = 5)))]
    tags: Vec<String>,
    #[validate(length(min = 1))]
    lines: Vec<Line>,
    #[serde(default)]
    payment: Payment,
    #[validate(custom(is_no_palindrome))]
    #[serde(default)]
    code: String,
}

#[data]
struct Line {
    #[validate(regex(path = SKU))]
    sku: String,
    #[validate(range(min = 1, max = 99))]
    amount: u32,
    #[serde(default, rename = "unitPrice")]
    #[validate(range(exclusive_min = 0.0), custom(function = "is_in_cents"))]
    unit_price: Option<f64>,
}

#[data]
#[derive(Default)]
#[serde(tag = "by", rename_all = "lowercase")]
enum Payment {
    #[default]
    Cash,
    Card {
        #[validate(length(equal = 4))]
        number: String,
    },
}

fn is_worth_it(order: &Order) -> Result<(), String> {
    let pieces: u64 = order.lines.iter().map(|line| u64::from(line.amount)).sum();
    if pieces > 150 { Err("we cannot carry more than 150 pieces".to_owned()) } else { Ok(()) }
}

fn is_no_palindrome(code: &String) -> Result<(), &'static str> {
    let reversed: String = code.chars().rev().collect();
    if !code.is_empty() && reversed == *code { Err("it reads the same backwards") } else { Ok(()) }
}

fn is_in_cents(price: &Option<f64>) -> Result<(), String> {
    match price {
        Some(price) if (price * 100.0).fract() != 0.0 => Err(format!("{price} is no amount of cents")),
        _ => Ok(()),
    }
}

/// It has no rules of its own.
#[event(request, name = "border.plain", response = u32, expose)]
struct Plain {
    number: u8,
    text: String,
}

/// A notification with a rule.
#[event(notification, name = "border.noted", expose)]
struct Noted {
    #[validate(length(max = 5))]
    text: String,
}

#[data]
struct Row {
    #[validate(length(min = 1))]
    name: String,
    #[validate(custom(is_no_palindrome))]
    code: String,
}

/// Rows go up.
#[event(tunnel, name = "border.rows", up = Row, down = (), result = u32, http = "POST /rows")]
struct Rows {
    #[validate(length(min = 2))]
    into: String,
}

struct Shop;

impl Worker for Shop {}

impl Handle<Order> for Shop {
    async fn handle(&mut self, order: &Order, _: &mut Context) -> Result<String, Failure> {
        Ok(order.title.clone())
    }
}

impl Handle<Plain> for Shop {
    async fn handle(&mut self, plain: &Plain, _: &mut Context) -> Result<u32, Failure> {
        Ok(u32::from(plain.number))
    }
}

impl Handle<Rows> for Shop {
    async fn handle(&mut self, _: &Rows, cx: &mut Context) -> Result<u32, Failure> {
        let mut tunnel = cx.accept::<Rows>()?;
        let mut count = 0;
        while tunnel.recv().await?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}

async fn node() -> Node {
    let shop = Manager::new("shop").worker(|| Shop).handles::<Order>().handles::<Plain>().handles::<Rows>();
    let api = Api::bind("127.0.0.1:0").event::<Noted>();
    App::new("gate").manager(shop).api(api).start().await.expect("starts")
}

fn good() -> Value {
    json!({"title": "Ä", "mail": "ada@example.org", "lines": [{"sku": "AB-1", "amount": 3, "unitPrice": 1.25}]})
}

/// What is wrong, as the border says it.
fn errors(of: &Value) -> Vec<(&str, &str)> {
    let all = of["errors"].as_array().map_or(&[][..], Vec::as_slice);
    let pairs = all.iter().map(|error| error["field"].as_str().zip(error["message"].as_str()));
    pairs.collect::<Option<_>>().unwrap_or_else(|| panic!("an error without a field or a message: {of}"))
}

/// All ways in say the same of a payload.
async fn check(node: &Node, event: &str, payload: Value, expect: &[(&str, &str)]) {
    let answer = ask(node, &format!("POST /events/{event}"), &[], payload.to_string()).await;
    assert_eq!(answer.status.as_u16() == 400, !expect.is_empty(), "{payload}: {answer:?}");
    if !expect.is_empty() {
        let problem = answer.json();
        assert_eq!(problem["code"], "invalid_payload");
        assert_eq!(errors(&problem), expect, "{payload}");
    }
    let packed = rmp_serde::to_vec_named(&payload).expect("encodes");
    let answer = ask(node, &format!("POST /events/{event}"), &[("content-type", "application/msgpack")], packed).await;
    assert_eq!(answer.status.as_u16() == 400, !expect.is_empty(), "{payload}: {answer:?}");
    if !expect.is_empty() {
        assert_eq!(errors(&answer.json()), expect, "{payload} as MessagePack");
    }
    let mut socket = Socket::to(node).await;
    socket.send(json!({"request": {"id": 1, "event": event, "payload": payload}})).await;
    let response = socket.response(1).await;
    if expect.is_empty() {
        assert_ne!(response["error"]["code"], "invalid_payload", "{payload}: {response}");
    } else {
        assert_eq!(response["error"]["code"], "invalid_payload", "{payload}: {response}");
        assert_eq!(errors(&response["error"]), expect, "{payload} over WebSocket");
    }
}

#[tokio::test]
async fn all_that_is_wrong_is_told_by_field_whatever_the_way_in() {
    let node = node().await;
    check(&node, "border.order", good(), &[]).await;
    let mut order = good();
    order["title"] = json!("");
    check(&node, "border.order", order, &[("title", "it must not be empty")]).await;
    let order = json!({
        "title": "far too long to be a title",
        "mail": "nobody",
        "page": "::",
        "tags": ["a", "b", "too long"],
        "lines": [{"sku": "AB-1", "amount": 1}, {"sku": "ab", "amount": 100, "unitPrice": 0}, {"sku": "AB-2"}],
        "payment": {"by": "card", "number": "12345"},
    });
    let expect = [
        ("lines[1].amount", "it must be at most 99"),
        ("lines[1].sku", "it must match `^[A-Z]{2}-[0-9]+$`"),
        ("lines[1].unitPrice", "it must be more than 0.0"),
        ("lines[2].amount", "it is missing"),
        ("mail", "it must be an e-mail address, such as `ada@example.org`"),
        ("page", "it must be a URL, such as `https://example.org/`"),
        ("payment.number", "it must have at most 4 characters"),
        ("tags", "it must have at most 2 items"),
        ("tags[2]", "it must have at most 5 characters"),
        ("title", "it must have at most 20 characters"),
    ];
    check(&node, "border.order", order, &expect).await;
    // Characters are counted, not bytes.
    let mut order = good();
    order["title"] = json!("äöüäöüäöüäöüäöüäöüäö");
    check(&node, "border.order", order, &[]).await;
    node.shutdown().await;
}

#[tokio::test]
async fn rules_of_ones_own_are_called_for_fields_for_what_is_within_and_for_the_whole() {
    let node = node().await;
    let order = json!({
        "title": "t", "code": "abba",
        "lines": [{"sku": "AB-1", "amount": 99}, {"sku": "AB-2", "amount": 99, "unitPrice": 0.123}],
    });
    let expect = [
        ("", "we cannot carry more than 150 pieces"),
        ("lines[1].unitPrice", "0.123 is no amount of cents"),
        ("code", "it reads the same backwards"),
    ];
    check(&node, "border.order", order, &expect).await;
    // With the others, where the payload can be read.
    let order = json!({"title": "", "code": "abba", "lines": [{"sku": "AB-1", "amount": 1}]});
    let expect = [("title", "it must not be empty"), ("code", "it reads the same backwards")];
    check(&node, "border.order", order, &expect).await;
    node.shutdown().await;
}

#[tokio::test]
async fn an_event_without_rules_that_cannot_be_read_is_told_all_that_is_wrong_too() {
    let node = node().await;
    check(&node, "border.plain", json!({"number": 7, "text": "x"}), &[]).await;
    let expect = [("number", "it must be at most 255"), ("text", "it must be a text")];
    check(&node, "border.plain", json!({"number": 256, "text": 1}), &expect).await;
    check(&node, "border.plain", json!({}), &[("number", "it is missing"), ("text", "it is missing")]).await;
    node.shutdown().await;
}

#[tokio::test]
async fn notifications_and_the_rows_of_an_upload_are_held_to_their_rules() {
    let node = node().await;
    let answer = ask(&node, "POST /events/border.noted", &[], r#"{"text": "short"}"#).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let answer = ask(&node, "POST /events/border.noted", &[], r#"{"text": "longer"}"#).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(errors(&answer.json()), [("text", "it must have at most 5 characters")]);

    let rows = "{\"name\": \"a\", \"code\": \"ab\"}\n{\"name\": \"b\", \"code\": \"\"}\n";
    let answer = ask(&node, "POST /rows?into=ab", &[], rows).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!(2)));
    let answer = ask(&node, "POST /rows?into=a", &[], rows).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(errors(&answer.json()), [("into", "it must have at least 2 characters")]);
    let rows = "{\"name\": \"a\", \"code\": \"ab\"}\n{\"name\": \"\", \"code\": \"xx\"}\n";
    let answer = ask(&node, "POST /rows?into=ab", &[], rows).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    let expect = [("name", "it must not be empty"), ("code", "it reads the same backwards")];
    assert_eq!(errors(&answer.json()), expect);

    let mut socket = Socket::to(&node).await;
    let open =
        json!({"id": 1, "event": "border.rows", "payload": {"into": "ab"}, "credit": {"items": 9, "bytes": 999}});
    socket.send(json!({"open": open})).await;
    socket.send(json!({"data": {"id": 1, "payload": {"name": "", "code": ""}}})).await;
    let abort = loop {
        let frame = socket.next().await;
        if frame["abort"].is_object() {
            break frame["abort"]["failure"].clone();
        }
        assert!(frame["response"].is_null(), "{frame}");
    };
    assert_eq!(abort["code"], "invalid_payload", "{abort}");
    assert_eq!(errors(&abort), [("name", "it must not be empty")]);
    node.shutdown().await;
}

fn declared(name: &str, schema: Value) -> DescriptorRef {
    let event = schemars::Schema::try_from(schema).expect("a schema");
    let exposure = edri::Exposure::default();
    let declaration = edri::Descriptor::declare(name, Kind::Request).expect("a name").expose(exposure);
    declaration.schemas(Schemas { event, ..Schemas::default() }).build()
}

#[tokio::test]
async fn an_event_that_was_declared_at_run_time_is_held_to_its_schema() {
    let person = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 2},
            "kind": {"enum": ["a", "b"]},
            "boss": {"anyOf": [{"$ref": "#/$defs/boss"}, {"type": "null"}]},
            "raw": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}, "maxItems": 3},
        },
        "required": ["name"],
        "additionalProperties": false,
        "$defs": {"boss": {"type": "object", "properties": {"mail": {"type": "string", "format": "email"}}, "required": ["mail"]}},
    });
    let events = [
        declared("any.person", person),
        declared("any.thing", json!(true)),
        declared("any.odd", json!({"$ref": "https://example.org/elsewhere.json"})),
        declared("any.endless", json!({"allOf": [{"$ref": "#"}]})),
        declared("any.pattern", json!({"properties": {"a": {"pattern": "("}}})),
    ];
    // Nobody handles them: what passes is answered so.
    let node = App::new("gate").api(Api::bind("127.0.0.1:0")).start().await.expect("starts");
    for event in events {
        node.bus().declare(event).await.expect("is declared");
    }
    check(&node, "any.person", json!({"name": "Ada", "boss": null, "raw": [1, 2]}), &[]).await;
    let person = json!({"name": "A", "kind": "c", "boss": {"mail": "x"}, "raw": [1, 2, 3, 4], "age": 3});
    let expect = [
        ("boss.mail", "it must be an e-mail address, such as `ada@example.org`"),
        ("kind", "it must be one of `a`, `b`"),
        ("name", "it must have at least 2 characters"),
        ("raw", "it must have at most 3 items"),
        ("age", "there is no such field: leave it out"),
    ];
    check(&node, "any.person", person, &expect).await;
    check(&node, "any.person", json!({"name": "Ada", "boss": {}}), &[("boss.mail", "it is missing")]).await;
    check(&node, "any.thing", json!([1, {"a": null}]), &[]).await;
    for (event, why) in
        [("any.odd", "which is not in the schema"), ("any.endless", "leads back to itself"), ("any.pattern", "(")]
    {
        let answer = ask(&node, &format!("POST /events/{event}"), &[], "{}").await;
        assert_eq!(answer.status, 400, "{answer:?}");
        let problem = answer.json();
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(why)), "{event}: {problem}");
    }
    node.shutdown().await;
}

#[tokio::test]
async fn rules_are_in_the_schemas_that_everybody_is_shown() {
    let node = node().await;
    let document = get(&node, "/openapi.json").await.json().to_string();
    for rule in [r#""maxLength":20"#, r#""format":"email""#, r#""maximum":99"#, r#""pattern":"^[A-Z]{2}-[0-9]+$""#] {
        assert!(document.contains(rule), "{rule} is not in {document}");
    }
    let events = get(&node, "/events").await.json();
    let order =
        events.as_array().expect("a list").iter().find(|event| event["name"] == "border.order").expect("is there");
    assert_eq!(order["schemas"]["event"]["properties"]["title"]["maxLength"], 20);
    assert_eq!(order["schemas"]["event"]["properties"]["title"]["minLength"], 1);
    node.shutdown().await;
}

#[tokio::test]
async fn payloads_of_strangers_end_neither_the_node_nor_its_memory() {
    let node = node().await;
    let post = async |body: String| ask(&node, "POST /events/border.order", &[], body).await;
    let deep = format!(r#"{{"title": {}{}}}"#, "[".repeat(5000), "]".repeat(5000));
    assert_eq!(post(deep).await.status, 400);
    let many = format!(r#"{{"title": "t", "lines": [{}1]}}"#, "1,".repeat(500_000));
    let answer = within("many errors", post(many)).await;
    assert_eq!((answer.status.as_u16(), errors(&answer.json()).len()), (400, 1));
    let wrong: Vec<_> = (0..500).map(|_| json!({"sku": "", "amount": 0})).collect();
    let answer = post(json!({"title": "t", "lines": wrong}).to_string()).await;
    assert_eq!((answer.status.as_u16(), errors(&answer.json()).len()), (400, 64));
    // Over WebSocket, what is no value at all.
    let mut socket = Socket::open(address(&node), Some("edri.json")).await.expect("connects");
    socket.send(json!({"hello": {"version": 1, "role": "client"}})).await;
    socket.next().await;
    let text = r#"{"request": {"id": 1, "event": "border.order", "payload": [1, "x"]}}"#;
    within("sending", socket.socket.send(Message::text(text))).await.expect("sent");
    assert_eq!(socket.response(1).await["error"]["errors"][0]["message"], "it must be a map of fields");
    node.shutdown().await;
}
