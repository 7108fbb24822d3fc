//! Answers that may be given again: to whom, for how long, and what ends them.

mod bursts;
mod nodes;
mod websocket;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edri::prelude::*;
use edri::{ApiLimits, Token};
use futures_util::FutureExt;
use serde_json::json;

use super::client::{Answer, ask, get};
use crate::support::{Gate, does, ends_well, started, until};

/// A ticket; who asks is told apart.
#[event(request, name = "kept.ticket", response = Shown, key = id, http = "GET /tickets/{id}", http = "POST /tickets/show",
    cache = "60s", stale_on = "kept.changed")]
pub(crate) struct ShowTicket {
    id: u32,
    #[serde(default)]
    tags: Vec<String>,
}

/// All tickets.
#[event(request, name = "kept.tickets", response = Shown, http = "GET /tickets", cache = "60s", stale_on = "kept.changed", stale_on = "kept.cleared")]
pub(crate) struct ListTickets {}

/// The same for everybody, and for its time.
#[event(request, name = "kept.rate", response = Shown, http = "GET /rates/{to}", cache = "60s", public)]
pub(crate) struct Rate {
    to: String,
    #[http(header = "x-tenant")]
    tenant: Option<String>,
}

/// Holds for a moment.
#[event(request, name = "kept.brief", response = Shown, http = "GET /brief", cache = "300ms")]
pub(crate) struct Brief {}

/// Changes a ticket.
#[event(request, name = "kept.change", response = u64, http = "POST /tickets/{id}/change")]
pub(crate) struct ChangeTicket {
    id: u32,
}

/// Is not declared cacheable.
#[event(request, name = "kept.fresh", response = Shown, http = "GET /fresh")]
pub(crate) struct Fresh {}

/// Chooses its headers.
#[event(request, name = "kept.http", response = Http<Shown>, http = "GET /http/{which}", cache = "60s", public)]
pub(crate) struct Chosen {
    which: String,
}

/// A ticket has changed.
#[event(notification, name = "kept.changed", key = id, expose)]
pub(crate) struct Changed {
    id: u32,
}

/// All tickets have gone.
#[event(notification, name = "kept.cleared", expose)]
pub(crate) struct Cleared {}

/// What was asked, by whom, and how often anybody had asked by then.
#[data]
pub(crate) struct Shown {
    said: String,
    caller: Option<String>,
    times: u64,
    changes: u64,
}

/// Counts how often it is asked, and waits at a gate if there is one.
#[derive(Clone, Default)]
pub(crate) struct Desk {
    times: Arc<AtomicU64>,
    gate: Option<Gate>,
    cancelled: Arc<AtomicU64>,
    /// How often a ticket was changed.
    changes: Arc<AtomicU64>,
}

impl Desk {
    fn times(&self) -> u64 {
        self.times.load(Ordering::SeqCst)
    }

    async fn show(&self, said: String, cx: &mut Context) -> Result<Shown, Failure> {
        let times = self.times.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(gate) = &self.gate {
            tokio::select! {
                () = gate.pass() => {}
                () = cx.cancelled() => {
                    self.cancelled.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
        if said.contains("wrong") {
            return Err(Failure::new("not_found", format!("wrong, the {times}. time")));
        }
        let changes = self.changes.load(Ordering::SeqCst);
        Ok(Shown { said, caller: cx.caller().map(str::to_owned), times, changes })
    }

    /// Managers that answer everything.
    pub(crate) fn staff(&self) -> Vec<edri::Definition> {
        macro_rules! manager {
            ($name:literal, $event:ty, $desk:ident, $said:expr) => {{
                let $desk = self.clone();
                let worker = does::<$event, _>(move |event, cx| {
                    let desk = $desk.clone();
                    let said: fn(&$event) -> String = $said;
                    async move { desk.show(said(event), cx).await }.boxed()
                });
                Manager::new($name).workers(8, worker).handles::<$event>().into()
            }};
        }
        let desk = self.clone();
        let chosen = does::<Chosen, _>(move |event, cx| {
            let desk = desk.clone();
            async move {
                let shown = desk.show(event.which.clone(), cx).await?;
                let times = shown.times.to_string();
                Ok(match &*event.which {
                    "cookie" => Http::new(shown).cookie("visit", &times),
                    "long" => Http::new(Shown { said: "x".repeat(10_000), ..shown }),
                    "mine" => Http::new(shown).header("cache-control", "max-age=5").header("etag", "\"mine\""),
                    "private" => Http::new(shown).header("cache-control", "private"),
                    "gone" => Http::new(shown).status(410),
                    _ => Http::new(shown),
                })
            }
            .boxed()
        });
        let desk = self.clone();
        let change = does::<ChangeTicket, _>(move |event, cx| {
            let changes = desk.changes.fetch_add(1, Ordering::SeqCst) + 1;
            async move {
                cx.publish(Changed { id: event.id }).await?;
                Ok(changes)
            }
            .boxed()
        });
        vec![
            Manager::new("change").worker(change).handles::<ChangeTicket>().into(),
            manager!("ticket", ShowTicket, desk, |event| format!("{} {:?}", event.id, event.tags)),
            manager!("tickets", ListTickets, desk, |_| "all".to_owned()),
            manager!("rate", Rate, desk, |event| format!("{} {:?}", event.to, event.tenant)),
            manager!("brief", Brief, desk, |_| "brief".to_owned()),
            manager!("fresh", Fresh, desk, |_| "fresh".to_owned()),
            Manager::new("chosen").workers(8, chosen).handles::<Chosen>().into(),
        ]
    }

    async fn node(&self, api: Api) -> Node {
        let app = App::new("kept").api(api.event::<Changed>().event::<Cleared>());
        started(self.staff().into_iter().fold(app, App::manager)).await
    }
}

fn gateway() -> Api {
    Api::bind("127.0.0.1:0")
}

/// How often anybody had been asked when this was answered.
fn times(answer: &Answer) -> u64 {
    assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
    answer.json()["times"].as_u64().expect("a number")
}

#[tokio::test]
async fn an_answer_is_given_again_for_its_lifetime_and_whichever_way_it_is_asked_for() {
    let desk = Desk::default();
    let node = desk.node(gateway()).await;
    let one = get(&node, "/tickets/1?tags=a&tags=b").await;
    assert_eq!(times(&one), 1);
    let posted = |body| ask(&node, "POST /tickets/show", &[], body);
    for again in [
        get(&node, "/tickets/1?tags=a&tags=b").await,
        posted(r#"{"id": 1, "tags": ["a", "b"]}"#).await,
        ask(&node, "POST /events/kept.ticket", &[], r#"{"tags":["a","b"],"id":1}"#).await,
    ] {
        assert_eq!(again.body, one.body);
    }
    assert_eq!(times(&posted(r#"{"id": 1, "tags": ["b", "a"]}"#).await), 2, "another payload");
    assert_eq!(times(&get(&node, "/tickets/2").await), 3);
    let packed = ask(&node, "GET /tickets/2", &[("accept", "application/vnd.msgpack")], "").await;
    assert_eq!(packed.header("content-type"), "application/vnd.msgpack", "another encoding, another answer");
    let first = times(&get(&node, "/brief").await);
    crate::support::within("the end of what holds 300 ms", async {
        while times(&get(&node, "/brief").await) == first {}
    })
    .await;
    let fresh = [get(&node, "/fresh").await, get(&node, "/fresh").await];
    assert_ne!(times(&fresh[0]), times(&fresh[1]));
    ends_well(&node).await;
}

#[tokio::test]
async fn a_client_that_has_the_answer_is_told_so_and_no_more() {
    let desk = Desk::default();
    let node = desk.node(gateway()).await;
    let one = get(&node, "/rates/eur").await;
    let tag = one.header("etag").to_owned();
    assert!(tag.len() == 24 && tag.starts_with('"'), "strong: {tag}");
    assert_eq!(one.header("vary"), "accept, accept-encoding, x-tenant");
    let age: u64 = one.header("cache-control").strip_prefix("public, max-age=").expect("public").parse().expect("s");
    assert!((58..=60).contains(&age));
    for had in [&*tag, &format!("\"x\", W/{tag}"), "*"] {
        let same = ask(&node, "GET /rates/eur", &[("if-none-match", had)], "").await;
        assert_eq!((same.status.as_u16(), &*same.body, same.header("content-type")), (304, &b""[..], ""), "{had}");
        assert!(same.header("cache-control").starts_with("public, max-age=") && !same.header("vary").is_empty());
        assert!(same.header("etag").ends_with(&tag));
    }
    assert_eq!(times(&ask(&node, "GET /rates/eur", &[("if-none-match", "\"other\"")], "").await), 1);
    let head = ask(&node, "HEAD /rates/eur", &[], "").await;
    assert_eq!((head.status.as_u16(), &*head.body, head.header("etag")), (200, &b""[..], &*tag));
    assert_eq!(head.header("content-length"), one.body.len().to_string());
    let head = ask(&node, "HEAD /rates/eur", &[("if-none-match", &*tag)], "").await;
    assert_eq!((head.status.as_u16(), head.header("etag")), (304, &*tag));
    // A POST is no asking again.
    let posted = ask(&node, "POST /events/kept.rate", &[("if-none-match", "*")], r#"{"to": "eur"}"#).await;
    assert_eq!((times(&posted), posted.header("etag"), posted.header("cache-control")), (1, "", ""));
    // What browsers cannot hear of they ask for.
    let ticket = get(&node, "/tickets/1").await;
    assert_eq!(ticket.header("cache-control"), "private, no-cache");
    assert_eq!(ticket.header("vary"), "accept, accept-encoding, authorization, cookie");
    // What nobody declared cacheable is kept nowhere.
    let fresh = get(&node, "/fresh").await;
    assert_eq!((fresh.header("cache-control"), fresh.header("etag")), ("private, no-cache", ""));
    let missing = get(&node, "/rates/wrong").await;
    assert_eq!(
        (missing.status.as_u16(), missing.header("cache-control"), missing.header("etag")),
        (404, "no-store", "")
    );
    ends_well(&node).await;
}

#[tokio::test]
async fn the_tag_of_compressed_bytes_is_another_and_the_client_has_them_all_the_same() {
    let desk = Desk::default();
    let node = desk.node(gateway()).await;
    let plain = get(&node, "/http/long").await;
    let packed = ask(&node, "GET /http/long", &[("accept-encoding", "gzip")], "").await;
    assert_eq!((plain.header("content-encoding"), packed.header("content-encoding")), ("", "gzip"));
    let (tag, coded) = (plain.header("etag"), packed.header("etag"));
    assert_eq!(coded, format!("{}+gzip\"", tag.trim_end_matches('"')));
    for had in [tag, coded] {
        let headers = [("accept-encoding", "gzip"), ("if-none-match", had)];
        let same = ask(&node, "GET /http/long", &headers, "").await;
        assert_eq!((same.status.as_u16(), same.header("etag"), same.header("content-encoding")), (304, had, ""));
    }
    ends_well(&node).await;
}

#[tokio::test]
async fn nobody_is_given_what_is_anothers_and_shared_caches_keep_nothing_private() {
    let desk = Desk::default();
    let may = Permissions::new().request("kept.*");
    let (ann, bob) = (Token::random().expect("a token"), Token::random().expect("a token"));
    let access = Access::new().token(&ann.hash(), "ann", may.clone()).token(&bob.hash(), "bob", may);
    let access = access.anonymous(Permissions::new().request("kept.http"));
    let node = desk.node(gateway().access(access)).await;
    let bearer = |token: &Token| format!("Bearer {}", token.secret());
    let (ann, bob) = (bearer(&ann), bearer(&bob));
    let as_caller = |path: &'static str, who: &str| {
        let who = who.to_owned();
        let node = &node;
        async move { ask(node, &format!("GET {path}"), &[("authorization", &who)], "").await }
    };
    let anns = as_caller("/tickets/1", &ann).await;
    let bobs = as_caller("/tickets/1", &bob).await;
    assert_eq!((&anns.json()["caller"], &bobs.json()["caller"]), (&json!("ann"), &json!("bob")));
    assert_eq!(as_caller("/tickets/1", &ann).await.body, anns.body);
    assert_eq!(anns.header("cache-control"), "private, no-cache");
    assert!(anns.header("vary").contains("authorization"));
    // One for all, who is not told to the worker; but not for those who may not have it.
    let anns = as_caller("/rates/eur", &ann).await;
    assert_eq!(as_caller("/rates/eur", &bob).await.body, anns.body);
    assert_eq!(anns.json()["caller"], json!(null));
    assert!(anns.header("cache-control").starts_with("private, max-age="), "a token is needed for it");
    assert_eq!(get(&node, "/rates/eur").await.status.as_u16(), 401);
    let open = as_caller("/http/x", &ann).await;
    assert!(open.header("cache-control").starts_with("public, max-age="), "{open:?}");
    assert_eq!(get(&node, "/http/x").await.body, open.body);
    ends_well(&node).await;
}

#[tokio::test]
async fn what_a_worker_says_of_its_answer_stays_and_is_heeded() {
    let desk = Desk::default();
    let node = desk.node(gateway()).await;
    let mine = get(&node, "/http/mine").await;
    assert_eq!((mine.header("cache-control"), mine.header("etag")), ("max-age=5", "\"mine\""));
    let same = ask(&node, "GET /http/mine", &[("if-none-match", "\"mine\"")], "").await;
    assert_eq!((same.status.as_u16(), desk.times()), (304, 1));
    for (which, control) in [("cookie", "private, no-cache"), ("private", "private"), ("gone", "private, no-cache")] {
        let answers = [get(&node, &format!("/http/{which}")).await, get(&node, &format!("/http/{which}")).await];
        assert_ne!(answers[0].json()["times"], answers[1].json()["times"], "{which} is for one");
        assert_eq!((answers[0].header("cache-control"), answers[0].header("etag")), (control, ""), "{which}");
    }
    ends_well(&node).await;
}

#[tokio::test]
async fn a_notification_ends_what_it_makes_stale_and_nothing_else() {
    let desk = Desk::default();
    let node = desk.node(gateway()).await;
    let all = |paths: &'static [&'static str]| {
        let node = &node;
        async move {
            let mut all = Vec::new();
            for path in paths {
                all.push(times(&get(node, path).await));
            }
            all
        }
    };
    let paths = &["/tickets/1", "/tickets/2", "/tickets", "/rates/eur"];
    assert_eq!(all(paths).await, [1, 2, 3, 4]);
    assert_eq!(all(paths).await, [1, 2, 3, 4]);
    node.bus().publish(Changed { id: 2 }).await.expect("published");
    assert_eq!(all(paths).await, [1, 5, 6, 4], "of one key, and the list");
    let gone = ask(&node, "POST /events/kept.cleared", &[], "{}").await;
    assert_eq!(gone.status.as_u16(), 202);
    assert_eq!(all(paths).await, [1, 5, 7, 4], "it ends the list only");
    let changed = Body::from(json!({"id": 1}));
    node.bus().untyped().publish("kept.changed", changed).await.expect("published");
    assert_eq!(all(paths).await, [8, 5, 9, 4]);
    // What the browser has is as it was only while it is.
    let ticket = get(&node, "/tickets/1").await;
    let has = [("if-none-match", ticket.header("etag"))];
    assert_eq!(ask(&node, "GET /tickets/1", &has, "").await.status.as_u16(), 304);
    node.bus().publish(Changed { id: 1 }).await.expect("published");
    assert_eq!(times(&ask(&node, "GET /tickets/1", &has, "").await), 10);
    ends_well(&node).await;
}

#[tokio::test]
async fn what_is_kept_has_bounds_and_zero_keeps_nothing() {
    let desk = Desk::default();
    let mut limits = ApiLimits::default();
    limits.cache_bytes = 0;
    let node = desk.node(gateway().limits(limits.clone())).await;
    assert_eq!([times(&get(&node, "/rates/a").await), times(&get(&node, "/rates/a").await)], [1, 2]);
    ends_well(&node).await;
    limits.cache_bytes = 64 << 10;
    limits.cache_entries = 8;
    let node = desk.node(gateway().limits(limits)).await;
    for number in 0..100 {
        get(&node, &format!("/rates/{number}")).await;
    }
    let long = [get(&node, "/http/long").await, get(&node, "/http/long").await];
    assert_ne!(long[0].json()["times"], long[1].json()["times"], "longer than one may be");
    assert!(!long[0].header("etag").is_empty(), "browsers may keep it");
    let figures = get(&node, "/metrics").await;
    let figures = String::from_utf8_lossy(&figures.body).into_owned();
    let figure = |name: &str| {
        let line = figures.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {figures}"));
        line.rsplit(' ').next().and_then(|number| number.parse::<u64>().ok()).expect("a number")
    };
    assert!((1..=8).contains(&figure("edri_cache_entries ")), "{figures}");
    assert!(figure("edri_cache_bytes ") <= 64 << 10);
    assert_eq!(figure("edri_cache_requests_total{outcome=\"asked\"}"), 102);
    assert_eq!(figure("edri_cache_cut_off "), 0);
    ends_well(&node).await;
}
