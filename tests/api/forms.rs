//! HTML forms, as a browser sends them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use edri::Node;
use edri::prelude::*;

use edri::{Pages, Sessions, Store};

use super::access::Folder;
use super::client::{Answer, address, ask};
use super::gateway;
use crate::support::{Gate, does, started, until, within};

/// Makes a ticket.
#[event(request, name = "desk.open", response = Ticket, http = "POST /tickets", form = "open.html", then = "/tickets/{id}")]
pub(super) struct Open {
    title: String,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    priority: u8,
    urgent: bool,
    tags: Vec<String>,
}

#[data]
pub(super) struct Ticket {
    id: u64,
    said: String,
}

/// Closes one.
#[event(notification, name = "desk.closed", http = "POST /tickets/{id}/close", then = "/tickets/{id}")]
pub(super) struct Closed {
    id: u64,
}

/// A node that makes tickets and counts them.
pub(super) async fn node(api: Api) -> (Node, Arc<AtomicU64>) {
    let made = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&made);
    let open = does::<Open, _>(move |open, _| {
        let id = count.fetch_add(1, Ordering::SeqCst) + 1;
        let Open { title, email, priority, urgent, tags } = open;
        let said = format!("{title} {email:?} {priority} {urgent} {tags:?}");
        Box::pin(async move { Ok(Ticket { id, said }) })
    });
    let desk = Manager::new("desk").worker(open).handles::<Open>();
    let node = started(App::new("gate").manager(desk).api(api.event::<Closed>())).await;
    (node, made)
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
/// As Chromium asks for pages.
const PAGE: (&str, &str) = ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8");

pub(super) async fn post(node: &Node, path: &str, headers: &[(&str, &str)], form: &str) -> Answer {
    let headers: Vec<_> = [FORM, PAGE].iter().chain(headers).copied().collect();
    ask(node, &format!("POST {path}"), &headers, form.to_owned()).await
}

#[tokio::test]
async fn a_form_is_an_event_and_its_browser_goes_on_to_where_the_event_says() {
    let (node, _) = node(gateway()).await;
    let form = "title=Printer+on+%E2%9C%93&email=&priority=2&urgent=on&tags=a&tags=b&save=";
    let sent = post(&node, "/tickets", &[], form).await;
    assert_eq!((sent.status.as_u16(), sent.header("location")), (303, "/tickets/1"), "{sent:?}");
    assert!(sent.body.is_empty());
    // A notification's places are its own fields.
    let closed = post(&node, "/tickets/7/close", &[], "").await;
    assert_eq!((closed.status.as_u16(), closed.header("location")), (303, "/tickets/7"), "{closed:?}");
    // A program is given data, and what curl calls a form though it is none is read as it is.
    let data = ask(&node, "POST /tickets", &[FORM, ("accept", "application/json")], form).await;
    assert_eq!((data.status.as_u16(), &data.json()["id"]), (200, &2.into()));
    assert_eq!(data.json()["said"], r#"Printer on ✓ None 2 true ["a", "b"]"#);
    let json = r#" {"title": "x", "urgent": false, "tags": []}"#;
    let curl = ask(&node, "POST /tickets", &[FORM, ("accept", "*/*")], json).await;
    assert_eq!((curl.status.as_u16(), &curl.json()["id"]), (200, &3.into()));
    node.shutdown().await;
}

#[tokio::test]
async fn all_that_is_wrong_with_a_form_is_said_by_field() {
    let (node, made) = node(gateway()).await;
    let wrong = post(&node, "/tickets", &[], "title=a&title=b&priority=many&lines[x]=1").await;
    assert_eq!((wrong.status.as_u16(), &wrong.json()["code"]), (400, &"invalid_payload".into()));
    let errors = wrong.json()["errors"].clone();
    let fields: Vec<_> = errors.as_array().expect("errors").iter().map(|error| error["field"].clone()).collect();
    assert_eq!(fields, ["lines[x]", "priority", "title"]);
    let missing = post(&node, "/tickets", &[], "priority=300").await;
    assert_eq!(missing.status, 400, "{missing:?}");
    assert_eq!(made.load(Ordering::SeqCst), 0);
    node.shutdown().await;
}

// ---- shown again -------------------------------------------------------------------------------------------------------

const TEMPLATE: &str = r#"<form method="post">{{ hidden }}<input name="title" value="{{ form.title }}">
{% for tag in form.tags %}<i>{{ tag }}</i>{% endfor %}<b>{{ errors.priority }}</b><p>{{ problem.code }}: {{ problem.detail }}</p></form>"#;

fn pages(folder: &Folder) -> Pages {
    folder.write("open.html", TEMPLATE);
    Pages::folder(&folder.0)
}

/// The value of a hidden field of a page.
fn hidden(page: &str, name: &str) -> Option<String> {
    let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\""))?;
    rest.split('"').next().map(str::to_owned)
}

#[tokio::test]
async fn a_form_with_mistakes_is_shown_again_with_what_was_typed_and_what_is_wrong() {
    let folder = Folder::new("forms");
    let (node, made) = node(gateway().pages(pages(&folder))).await;
    let form = "title=%3Cscript%3E&priority=many&tags=a&tags=%22%3E";
    let again = post(&node, "/tickets", &[], form).await;
    let page = String::from_utf8(again.body.to_vec()).expect("text");
    assert_eq!((again.status.as_u16(), again.header("content-type")), (400, "text/html; charset=utf-8"), "{page}");
    assert_eq!(again.header("cache-control"), "no-store");
    assert!(page.contains(r#"value="&lt;script&gt;""#) && page.contains("<i>a</i><i>&quot;&gt;</i>"), "{page}");
    assert!(page.contains("<b>`many` is not an integer</b>") && page.contains("<p>invalid_payload: "), "{page}");
    assert!(hidden(&page, "_once").is_some() && hidden(&page, "_csrf").is_none(), "nobody is logged in: {page}");
    // A program is told as before.
    let data = ask(&node, "POST /tickets", &[FORM, ("accept", "application/json")], form).await;
    assert_eq!(data.json()["errors"][0]["field"], "priority");
    assert_eq!(made.load(Ordering::SeqCst), 0);
    node.shutdown().await;
}

/// Logs in.
#[event(request, name = "desk.enter", response = Http<()>, http = "POST /enter", then = "/")]
struct Enter {}

#[tokio::test]
async fn a_form_whose_session_has_ended_is_shown_again_and_nothing_is_lost_or_done() {
    let folder = Folder::new("forms");
    let access = Access::new()
        .role("agent", Permissions::new().request("desk.open"))
        .anonymous(Permissions::new().request("desk.enter"));
    let enter = does::<Enter, _>(|_, _| Box::pin(async { Ok(Http::new(()).log_in("anna", "agent")) }));
    let made = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&made);
    let open = does::<Open, _>(move |_, _| {
        let id = count.fetch_add(1, Ordering::SeqCst) + 1;
        Box::pin(async move { Ok(Ticket { id, said: String::new() }) })
    });
    let api = gateway().pages(pages(&folder)).access(access).sessions(Sessions::new());
    let app = App::new("gate").manager(Manager::new("enter").worker(enter).handles::<Enter>());
    let app = app.manager(Manager::new("desk").worker(open).handles::<Open>());
    let node = started(app.manager(Store::memory().namespace("sessions")).api(api)).await;
    let entered = post(&node, "/enter", &[], "").await;
    let cookie = entered.header("set-cookie").split(';').next().expect("a cookie").to_owned();
    let cookie = ("cookie", &*cookie);
    // Without the token it is shown again, with one.
    let again = post(&node, "/tickets", &[cookie], "title=long+text").await;
    let page = String::from_utf8(again.body.to_vec()).expect("text");
    assert_eq!(again.status, 403, "{page}");
    assert!(page.contains("<p>csrf: ") && page.contains(r#"value="long text""#), "{page}");
    let form = format!("title=long+text&_csrf={}", hidden(&page, "_csrf").expect("a token"));
    // The session ends while the form is open.
    let store = edri::Namespace::<serde_json::Value>::new(node.bus(), "sessions");
    let items = store.list("", None, 10).await.expect("listed").items;
    assert_eq!(items.len(), 1);
    store.delete(&items[0].key).await.expect("deleted");
    let late = post(&node, "/tickets", &[cookie], &form).await;
    let page = String::from_utf8(late.body.to_vec()).expect("text");
    assert_eq!(late.status, 401, "{page}");
    assert!(page.contains("<p>unauthorized: ") && page.contains(r#"value="long text""#), "{page}");
    assert!(late.header("set-cookie").contains("Max-Age=0"), "{late:?}");
    assert_eq!(made.load(Ordering::SeqCst), 0);
    // And with a new one it is done.
    let entered = post(&node, "/enter", &[], "").await;
    let cookie = entered.header("set-cookie").split(';').next().expect("a cookie").to_owned();
    let token = ask(&node, "GET /csrf", &[("cookie", &cookie)], "").await.json();
    let form = format!("title=long+text&_csrf={}", token["token"].as_str().expect("a token"));
    assert_eq!(post(&node, "/tickets", &[("cookie", &cookie)], &form).await.header("location"), "/tickets/1");
    node.shutdown().await;
}

// ---- twice -------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_form_that_is_posted_twice_is_taken_once_and_answered_the_same() {
    let gate = Gate::closed();
    let made = Arc::new(AtomicU64::new(0));
    let (count, passes) = (Arc::clone(&made), gate.clone());
    let open = does::<Open, _>(move |open, _| {
        let (id, passes) = (count.fetch_add(1, Ordering::SeqCst) + 1, passes.clone());
        let fails = open.title == "fails";
        Box::pin(async move {
            passes.pass().await;
            if fails { Err(Failure::new("conflict", "not now")) } else { Ok(Ticket { id, said: String::new() }) }
        })
    });
    let desk = Manager::new("desk").worker(open).handles_concurrently::<Open>();
    let node = started(App::new("gate").manager(desk).api(gateway())).await;
    // A double click: the browser leaves the first alone, and waits for the second.
    let form = "title=a&_once=abc";
    let mut first = tokio::net::TcpStream::connect(address(&node)).await.expect("connects");
    let head = format!(
        "POST /tickets HTTP/1.1\r\nhost: localhost\r\ncontent-type: {}\r\ncontent-length: {}\r\n\r\n",
        FORM.1,
        form.len()
    );
    tokio::io::AsyncWriteExt::write_all(&mut first, format!("{head}{form}").as_bytes()).await.expect("sent");
    until("the first is being taken", || made.load(Ordering::SeqCst) == 1).await;
    drop(first);
    let (second, third, ()) =
        tokio::join!(post(&node, "/tickets", &[], form), post(&node, "/tickets", &[], form), async {
            // Time for the gateway to have noticed that the first has gone, were it to cancel it.
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            gate.open();
        });
    let later = post(&node, "/tickets", &[], form).await;
    for answer in [second, third, later] {
        assert_eq!((answer.status.as_u16(), answer.header("location")), (303, "/tickets/1"), "{answer:?}");
    }
    assert_eq!(made.load(Ordering::SeqCst), 1);
    // Who goes back and writes something else has written something else.
    assert_eq!(post(&node, "/tickets", &[], "title=b&_once=abc").await.header("location"), "/tickets/2");
    assert_eq!(post(&node, "/tickets", &[], "title=a&_once=abd").await.header("location"), "/tickets/3");
    assert_eq!(post(&node, "/tickets", &[], "title=a").await.header("location"), "/tickets/4", "without a number");
    // What was not taken is tried again.
    for tries in 5..7 {
        assert_eq!(post(&node, "/tickets", &[], "title=fails&_once=x").await.status, 409);
        assert_eq!(made.load(Ordering::SeqCst), tries);
    }
    within("the end", node.shutdown()).await;
}
