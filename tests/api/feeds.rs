//! Server-sent events.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use edri::prelude::*;
use edri::{Jwt, Node, Token};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::access::Folder;
use super::client::{address, get};
use super::websocket::socket::Socket;
use super::{Quake, gateway, node};
use crate::support::within;

/// A client of `EventSource`'s kind.
pub(crate) struct Feed {
    body: Incoming,
    text: String,
    _connection: JoinSet<hyper::Result<()>>,
}

/// A message: name, id, data.
#[derive(Debug, PartialEq)]
pub(crate) struct Message {
    event: String,
    id: String,
    pub(crate) data: Value,
}

impl Feed {
    pub(crate) async fn open(node: &Node, query: &str, last: Option<&str>) -> Self {
        let stream = TcpStream::connect(address(node)).await.expect("connects");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("shakes");
        let mut connections = JoinSet::new();
        connections.spawn(connection);
        let mut request = Request::get(format!("/subscribe?{query}")).header("host", "localhost");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let request = request.body(Empty::<Bytes>::new()).expect("a request");
        let response = within("the head", sender.send_request(request)).await.expect("is answered");
        assert_eq!(response.headers()["content-type"], "text/event-stream", "{query}: {}", response.status());
        Self { body: response.into_body(), text: String::new(), _connection: connections }
    }

    /// The next message that is not a sign of life.
    pub(crate) async fn next(&mut self) -> Message {
        within("a message", async {
            loop {
                if let Some((message, rest)) = self.text.split_once("\n\n") {
                    let lines: Vec<_> = message.lines().filter_map(|line| line.split_once(": ")).collect();
                    let of = |name: &str| lines.iter().find(|(field, _)| *field == name).map_or("", |(_, value)| value);
                    let found = (!lines.is_empty()).then(|| Message {
                        event: of("event").to_owned(),
                        id: of("id").to_owned(),
                        data: serde_json::from_str(of("data")).expect("JSON"),
                    });
                    self.text = rest.to_owned();
                    match found {
                        Some(message) => return message,
                        None => continue,
                    }
                }
                let frame = self.body.frame().await.expect("goes on").expect("comes");
                self.text.push_str(std::str::from_utf8(&frame.into_data().expect("data")).expect("UTF-8"));
            }
        })
        .await
    }
}

async fn publish(node: &Node, region: &str, magnitude: f64) {
    node.bus().publish(Quake { region: region.into(), magnitude }).await.expect("publishes");
}

async fn remembering() -> Node {
    let history = History::new().events(4);
    App::new("feeds").history("api.quake", history).api(gateway()).start().await.expect("starts")
}

#[tokio::test]
async fn a_feed_brings_what_is_published_by_name_key_and_conditions() {
    let node = node(gateway()).await;
    let mut all = Feed::open(&node, "event=api.*", None).await;
    let mut north = Feed::open(&node, "event=api.quake&key=north", None).await;
    let mut strong = Feed::open(&node, "event=api.quake&where=%7B%22magnitude%22%3A%7B%22gte%22%3A5%7D%7D", None).await;
    publish(&node, "south", 5.5).await;
    publish(&node, "north", 4.5).await;
    let south = all.next().await;
    assert_eq!((&*south.event, &south.data), ("api.quake", &json!({"region": "south", "magnitude": 5.5})));
    assert_eq!(all.next().await.data["region"], "north");
    assert_eq!(north.next().await.data["region"], "north");
    assert_eq!(strong.next().await, south);
    node.shutdown().await;
}

#[tokio::test]
async fn a_feed_goes_on_where_its_reader_left_it_and_tells_of_a_gap() {
    let node = remembering().await;
    let mut feed = Feed::open(&node, "event=api.quake", None).await;
    publish(&node, "a", 1.0).await;
    let first = feed.next().await;
    assert_eq!(first.data["region"], "a");
    drop(feed);
    for region in ["b", "c"] {
        publish(&node, region, 1.0).await;
    }
    let mut feed = Feed::open(&node, "event=api.quake", Some(&first.id)).await;
    publish(&node, "d", 1.0).await;
    for region in ["b", "c", "d"] {
        assert_eq!(feed.next().await.data["region"], region, "each once, in order");
    }
    // Of these the history keeps four.
    for region in ["e", "f", "g", "h", "i"] {
        publish(&node, region, 1.0).await;
    }
    let mut late = Feed::open(&node, "event=api.quake", Some(&first.id)).await;
    assert_eq!(
        late.next().await,
        Message { event: "edri.missed".into(), id: String::new(), data: json!({"events": 4}) }
    );
    assert_eq!(late.next().await.data["region"], "f");
    let mut last = Feed::open(&node, "event=api.quake&last=1", None).await;
    assert_eq!(last.next().await.data["region"], "i");
    let mut other = Feed::open(&node, "event=api.quake", Some("of another life")).await;
    assert_eq!(other.next().await.data, json!({"events": null}), "it cannot be known what was missed");
    node.shutdown().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_feed_is_said() {
    let node = node(gateway()).await;
    let check = async |query: &str, status: u16, field: Option<&str>| {
        let answer = get(&node, &format!("/subscribe?{query}")).await;
        assert_eq!(answer.status.as_u16(), status, "{query}: {answer:?}");
        assert_eq!(answer.json()["errors"][0]["field"].as_str(), field, "{query}");
    };
    check("", 400, Some("event")).await;
    check("event=api.quake&event=api.quake", 400, Some("event")).await;
    check("event=api..quake", 400, Some("event")).await;
    check("event=api.quake&where=%7B%22a%22%3A%7B%22is%22%3A1%7D%7D", 400, Some("where")).await;
    check("event=api.quake&last=many", 400, Some("last")).await;
    check("event=api.quake&last=3", 400, Some("last")).await;
    check("event=api.quake&keys=a", 400, Some("keys")).await;
    check("event=api.nothing", 404, None).await;
    check("event=api.risk", 400, None).await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_feed_is_for_those_who_may_have_it() {
    let token = Token::random().expect("random");
    let access = edri::Access::new().token(&token.hash(), "anna", Permissions::new().subscribe("api.*"));
    let node = node(gateway().access(access)).await;
    assert_eq!(get(&node, "/subscribe?event=api.quake").await.status, 401);
    assert_eq!(get(&node, "/subscribe?event=api.quake&access_token=wrong").await.status, 401);
    let mut feed = Feed::open(&node, &format!("event=api.quake&access_token={}", token.secret()), None).await;
    publish(&node, "a", 1.0).await;
    assert_eq!(feed.next().await.data["region"], "a");
    node.shutdown().await;
}

/// A page that is left open is no longer let in than its token.
#[tokio::test]
async fn a_feed_ends_with_the_token_of_its_reader_and_so_does_a_websocket() {
    let (folder, secret) = (Folder::new("feeds"), "a secret of more than thirty-two bytes");
    let jwt = Jwt::secret_file(folder.write("secret", secret)).leeway(Duration::ZERO);
    let jwt = jwt.permissions(Permissions::new().subscribe("api.*"));
    let node = node(gateway().access(edri::Access::new().jwt(jwt))).await;
    let ends = SystemTime::now() + Duration::from_secs(3);
    let claims = json!({"sub": "anna", "exp": ends.duration_since(SystemTime::UNIX_EPOCH).expect("later").as_secs()});
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("signs");
    let feed = Feed::open(&node, &format!("event=api.quake&access_token={token}"), None).await;
    let hello = json!({"version": 1, "role": "client", "token": token});
    let (mut socket, _) = Socket::greet(address(&node), hello).await;
    assert!(within("the feed to end", feed.body.collect()).await.is_ok(), "it ends in good order");
    assert!(SystemTime::now() + Duration::from_secs(1) >= ends, "not before");
    assert!(socket.next().await["bye"].is_object());
    assert_eq!(get(&node, &format!("/subscribe?event=api.quake&access_token={token}")).await.status, 401);
    node.shutdown().await;
}

#[tokio::test]
async fn feeds_end_with_the_node_and_a_reader_that_leaves_ends_its_subscription() {
    let node = node(gateway()).await;
    let subscriptions = || node.topology().subscriptions.len();
    let before = subscriptions();
    let feed = Feed::open(&node, "event=api.quake", None).await;
    assert_eq!(subscriptions(), before + 1);
    drop(feed);
    crate::support::until("the subscription to end", || subscriptions() == before).await;
    let _feed = Feed::open(&node, "event=api.quake", None).await;
    let stopped = tokio::time::timeout(Duration::from_secs(10), node.shutdown()).await;
    assert!(stopped.is_ok(), "a feed holds nobody up");
}
