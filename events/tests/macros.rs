//! What `#[event]` and `#[data]` make of a declaration.

// The default path of the macros is `::edri`; here that is this crate under another name.
extern crate edri_events as edri;

use std::time::Duration;

use bytes::Bytes;
use edri_events::{Body, Data, Encoding, Event, Item, Kind, Notification, Request, Source, Tunnel, data, event};
use serde::{Deserialize, Serialize};

/// A quake was measured.
///
/// By at least three stations.
#[event(notification, name = "quake.recorded", key = region, ttl = "1.5s", crate = edri_events)]
#[derive(Debug, Clone, PartialEq)]
struct QuakeRecorded {
    region: String,
    magnitude: f64,
}

#[event(request, name = "risk.assess", response = Risk, key = cell, timeout = "2s", idempotent, crate = edri_events)]
#[derive(Debug)]
struct AssessRisk {
    cell: u32,
}

#[data(crate = edri_events)]
#[derive(Debug, PartialEq)]
struct Risk {
    probability: f64,
}

/// The description wins over this comment.
#[event(
    tunnel,
    name = "catalogue.upload",
    up = Chunk,
    down = u64,
    result = Vec<Risk>,
    key = owner,
    idle_timeout = "30s",
    description = " Takes a catalogue in. ",
    crate = edri_events,
)]
struct UploadCatalogue {
    owner: Option<String>,
}

#[data(crate = edri_events)]
struct Chunk {
    offset: u64,
    text: String,
    samples: Vec<u32>,
    bytes: Bytes,
    tag: Option<String>,
}

fn key_of(event: &impl Event) -> Option<String> {
    let mut key = None;
    event.visit_key(&mut |text| key = Some(text.to_owned()));
    key
}

fn schema_of<E: Event>() -> serde_json::Value {
    serde_json::to_value(&E::descriptor().schemas().event).expect("a schema is JSON")
}

#[test]
fn a_notification_says_what_was_declared() {
    fn is_notification<E: Notification>() -> &'static edri_events::Descriptor {
        E::descriptor()
    }
    let descriptor = is_notification::<QuakeRecorded>();
    assert_eq!(descriptor.name(), &"quake.recorded");
    assert_eq!(descriptor.kind(), Kind::Notification);
    assert_eq!(descriptor.key(), Some("region"));
    assert_eq!(descriptor.time_limit(), Some(Duration::from_millis(1_500)));
    assert_eq!(descriptor.description(), "A quake was measured.\n\nBy at least three stations.");
    assert!(!descriptor.is_idempotent());
    assert!(std::ptr::eq(descriptor, QuakeRecorded::descriptor()));
    assert_eq!(schema_of::<QuakeRecorded>()["properties"]["region"]["type"], "string");
}

#[test]
fn a_request_says_what_was_declared() {
    fn is_request<E: Request<Output = Risk>>() -> &'static edri_events::Descriptor {
        E::descriptor()
    }
    let descriptor = is_request::<AssessRisk>();
    assert_eq!(descriptor.kind(), Kind::Request);
    assert_eq!(descriptor.time_limit(), Some(Duration::from_secs(2)));
    assert!(descriptor.is_idempotent());
    assert_eq!(descriptor.description(), "");
    let response = descriptor.schemas().output.clone().expect("a request has one").to_value();
    assert_eq!(response["properties"]["probability"]["type"], "number");
}

#[test]
fn a_tunnel_says_what_was_declared() {
    fn is_tunnel<E: Tunnel<Up = Chunk, Down = u64, Output = Vec<Risk>>>() -> &'static edri_events::Descriptor {
        E::descriptor()
    }
    let descriptor = is_tunnel::<UploadCatalogue>();
    assert_eq!(descriptor.kind(), Kind::Tunnel);
    assert_eq!(descriptor.time_limit(), Some(Duration::from_secs(30)));
    assert_eq!(descriptor.description(), "Takes a catalogue in.");
    let up = descriptor.schemas().up.clone().expect("a tunnel has one").to_value();
    assert_eq!(up["properties"]["offset"]["type"], "integer");
}

#[test]
fn the_key_is_the_text_of_its_field() {
    let quake = QuakeRecorded { region: "Kīlauea".to_owned(), magnitude: 2.5 };
    assert_eq!(key_of(&quake).as_deref(), Some("Kīlauea"));
    assert_eq!(key_of(&AssessRisk { cell: 77 }).as_deref(), Some("77"));
    assert_eq!(key_of(&UploadCatalogue { owner: Some("usgs".to_owned()) }).as_deref(), Some("usgs"));
    assert_eq!(key_of(&UploadCatalogue { owner: None }), None);
}

#[test]
fn an_event_reads_back_what_it_writes() {
    let quake = QuakeRecorded { region: "Kīlauea".to_owned(), magnitude: 2.5 };
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let body = Body::encode(encoding, &quake).expect("encodes");
        assert_eq!(body.decode::<QuakeRecorded>().expect("decodes"), quake);
    }
}

mod with_the_default_path {
    use super::edri::{Event as _, data, event};

    #[event(request, name = "answer", response = Answer)]
    struct Ask;

    #[data]
    struct Answer(u8);

    #[event(notification, name = "switched")]
    enum Switched {
        On,
        Off { since: u64 },
    }

    #[test]
    fn edri_is_found() {
        let _units = (Ask, Switched::On, Switched::Off { since: 0 });
        assert_eq!(Ask::descriptor().name(), &"answer");
        assert_eq!(Switched::descriptor().key(), None);
    }
}

/// With serde's and schemars' derives in every mixture, from the user's own dependencies or from edri's.
mod with_derives_of_the_users {
    use schemars::JsonSchema;

    use super::{Data, Deserialize, Serialize, data};

    #[data]
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Writes {
        home_region: String,
    }

    #[data]
    #[derive(Serialize, serde::Deserialize)]
    struct WritesAndReads(u8);

    #[data]
    #[derive(JsonSchema)]
    struct Describes(u8);

    #[derive(Debug)]
    #[data]
    #[derive(Clone, Serialize, Deserialize, JsonSchema)]
    struct All(u8);

    #[data]
    #[serde(crate = "serde")]
    #[schemars(crate = "schemars", description = "x")]
    struct NamesCrates(u8);

    #[test]
    fn none_is_doubled_and_none_is_missing() {
        fn is_data<T: Data>(value: T, expect: &str) {
            assert_eq!(value.encode(super::Encoding::Json).expect("encodes"), expect);
        }
        is_data(Writes { home_region: "a".to_owned() }, r#"{"homeRegion":"a"}"#);
        is_data(WritesAndReads(1), "1");
        is_data(Describes(1), "1");
        is_data(All(1).clone(), "1");
        is_data(NamesCrates(1), "1");
    }
}

#[test]
fn the_key_is_called_what_serde_calls_its_field() {
    #[event(notification, name = "moved", key = r#type, crate = edri_events)]
    #[serde(rename_all = "PascalCase")]
    struct Moved {
        r#type: u8,
    }
    assert_eq!(Moved::descriptor().key(), Some("Type"));
    let body = Body::encode(Encoding::MessagePack, &Moved { r#type: 7 }).expect("encodes");
    assert_eq!(body.key_field("Type").expect("a map").as_deref(), Some("7"));
}

#[test]
fn the_weight_is_the_size_and_what_is_known_of_the_heap() {
    let chunk = Chunk {
        offset: 1,
        text: "x".repeat(10),
        samples: vec![0; 5],
        bytes: Bytes::from_static(b"123"),
        tag: Some("not looked into".to_owned()),
    };
    assert_eq!(chunk.weight(), size_of::<Chunk>() + 10 + 20 + 3);
    assert_eq!(chunk.offset, 1);
    assert_eq!(chunk.tag.map(|tag| tag.len()), Some(15));
    assert_eq!(Risk { probability: 0.5 }.weight(), 8);
}

#[test]
fn an_enum_weighs_what_its_variant_holds() {
    #[data(crate = edri_events)]
    enum Step {
        Line(String, u8),
        Block {
            bytes: Bytes,
            #[cfg(any())]
            gone: NoSuchType,
        },
        #[cfg(any())]
        Gone(NoSuchType),
        End,
    }
    assert_eq!(Step::Line("abc".to_owned(), 1).weight(), size_of::<Step>() + 3);
    assert_eq!(Step::Block { bytes: Bytes::from_static(b"1234") }.weight(), size_of::<Step>() + 4);
    assert_eq!(Step::End.weight(), size_of::<Step>());
}

#[test]
fn data_may_have_parameters() {
    #[data(crate = edri_events)]
    struct Page<T, U = ()>
    where
        T: Clone,
    {
        items: Vec<T>,
        next: Option<U>,
        one: T,
    }
    fn is_data<T: Data>(_: &T) {}
    let page = Page { items: vec![1_u32, 2], next: Some(()), one: 3 };
    is_data(&page);
    assert_eq!(page.weight(), size_of::<Page<u32>>() + 8);
    assert!(page.next.is_some() && page.one == 3);
}

#[test]
fn the_smallest_types_are_data() {
    #[data(crate = edri_events)]
    struct Unit;
    #[data(crate = edri_events)]
    struct Empty {}
    #[data(crate = edri_events)]
    struct Wrapper(Vec<u16>);
    assert_eq!(Unit.weight() + Empty {}.weight(), 0);
    assert_eq!(Wrapper(vec![1, 2]).weight(), size_of::<Wrapper>() + 4);
}

#[event(request, name = "order.show", response = String, http = "GET /orders/{orderId}", http = "POST /orders", crate = edri_events)]
#[serde(rename_all = "camelCase")]
struct ShowOrder {
    order_id: u32,
    #[http(header = "X-Tenant")]
    tenant: String,
    #[http(cookie = "Session")]
    session_id: Option<String>,
}

#[test]
fn an_exposed_event_says_where_its_fields_come_from() {
    let exposure = ShowOrder::descriptor().exposure().expect("it has routes");
    let routes: Vec<_> = exposure.routes.iter().map(ToString::to_string).collect();
    assert_eq!(routes, ["GET /orders/{orderId}", "POST /orders"]);
    let sources: Vec<_> = exposure.sources.iter().map(|source| (&*source.field, source.from.clone())).collect();
    // Headers have no case, cookies do.
    assert_eq!(sources[0], ("tenant", Source::Header("x-tenant".into())));
    assert_eq!(sources[1], ("sessionId", Source::Cookie("Session".into())));
    assert_eq!(QuakeRecorded::descriptor().exposure(), None, "nothing is exposed that does not say so");
    let _fields = |event: ShowOrder| (event.order_id, event.tenant, event.session_id);
}

#[test]
fn a_checked_envelope_is_of_the_events_type_and_is_decoded() {
    use edri_events::{Address, Envelope, Head, Incarnation, NodeName, Origin};
    let from =
        || Address { node: NodeName::new("n").expect("a name"), incarnation: Incarnation::random(), manager: None };
    let make = |text: &'static str| {
        let head = Head::new(QuakeRecorded::descriptor().into(), Origin::here(from()));
        Envelope::checked(head, Body::new(Encoding::Json, text))
    };
    let right = make(r#"{"region": "north", "magnitude": 1}"#).expect("is one");
    assert_eq!(right.payload::<QuakeRecorded>().expect("decoded").region, "north");
    let wrong = make(r#"{"region": "north"}"#).expect_err("lacks a field").to_string();
    assert!(wrong.contains("in `magnitude`: missing field"), "{wrong}");
}
