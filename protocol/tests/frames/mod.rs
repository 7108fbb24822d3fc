//! Any frame, for property tests. The strategies are boxed: a debug build would put all of one frame's on the stack.

use std::collections::BTreeMap;

use edri_events::{Encoding, EventId, Kind, TraceContext};
use edri_protocol::{
    Abort, Ack, Bye, Call, Cancel, Credit, Data, Declare, DeclaredCaching, DeclaredExposure, DeclaredSchemas, End,
    EventDeclaration, Fault, FieldFault, Frame, Grant, Handler, Health, Hello, Level, Log, Missed, Notice, Payload,
    Ping, Pong, Ready, Report, Response, Resume, Role, Session, Slow, Subscribe, Text, Unsubscribe, Wait, Welcome,
    Window,
};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use serde_json::{Map, Value};

/// A frame and its payload, which is not in it: the frame may be written in either encoding.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    frame: Frame<'static>,
    payload: Option<Value>,
}

impl Sample {
    /// Calls `with` with the frame, its payload in this encoding.
    pub(crate) fn with<T>(&self, encoding: Encoding, with: impl FnOnce(&Frame<'_>) -> T) -> T {
        let payload = self.payload.as_ref().map(|payload| encoding.encode(payload).expect("encodes"));
        let payload = payload.as_ref().map(|payload| Payload::new(encoding, payload));
        let mut frame: Frame<'_> = self.frame.clone();
        match &mut frame {
            Frame::Publish(call) | Frame::Request(call) | Frame::Open(call) => call.payload = payload,
            Frame::Response(response) => response.value = payload,
            Frame::Welcome(welcome) => welcome.arguments = payload,
            Frame::Subscribe(subscribe) => subscribe.conditions = payload,
            Frame::Data(data) => data.payload = payload.unwrap_or_else(|| null(encoding)),
            _ => {}
        }
        with(&frame)
    }

    pub(crate) fn encode(&self, encoding: Encoding) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.with(encoding, |frame| frame.encode(encoding, usize::MAX, &mut bytes)).expect("encodes");
        bytes
    }
}

fn null(encoding: Encoding) -> Payload<'static> {
    Payload::new(encoding, if encoding == Encoding::Json { b"null" } else { b"\xc0" })
}

pub(crate) fn encoding() -> BoxedStrategy<Encoding> {
    prop_oneof![Just(Encoding::MessagePack), Just(Encoding::Json)].boxed()
}

pub(crate) fn frame() -> BoxedStrategy<Sample> {
    (any_frame(), of(payload())).prop_map(|(frame, payload)| Sample { frame, payload }).boxed()
}

fn any_frame() -> BoxedStrategy<Frame<'static>> {
    let id = any::<u64>;
    let sessions = prop_oneof![
        hello().prop_map(Frame::Hello).boxed(),
        welcome().prop_map(Frame::Welcome).boxed(),
        Just(Frame::Ready(Ready {})),
        vec(declaration(), 0..4).prop_map(|events| Frame::Declare(Declare { events })),
        subscribe().prop_map(Frame::Subscribe).boxed(),
        (id(), of(id())).prop_map(|(id, count)| Frame::Missed(Missed { id, count })),
        id().prop_map(|id| Frame::Unsubscribe(Unsubscribe { id })),
        window().prop_map(Frame::Window).boxed(),
        id().prop_map(|id| Frame::Ping(Ping { id })),
        id().prop_map(|id| Frame::Pong(Pong { id })),
        log().prop_map(Frame::Log).boxed(),
        report().prop_map(Frame::Report).boxed(),
        (text(), text(), of(text()), of(id())).prop_map(|(code, message, frame, id)| Frame::Error(Notice {
            code,
            message,
            frame,
            id
        })),
        of(fault()).prop_map(|error| Frame::Bye(Bye { error })),
    ];
    let calls = prop_oneof![
        call().prop_map(Frame::Publish).boxed(),
        call().prop_map(Frame::Request).boxed(),
        call().prop_map(Frame::Open).boxed(),
        (id(), of(fault()), of(fault()), of(text()), any::<bool>()).prop_map(|(id, failure, error, from, more)| {
            Frame::Response(Response { id, value: None, failure, error, from, more })
        }),
        (vec(id(), 0..200), of(id()), of(id())).prop_map(|(done, begun, received)| Frame::Ack(Ack {
            done,
            begun,
            received
        })),
        id().prop_map(|id| Frame::Cancel(Cancel { id })),
        id().prop_map(|id| Frame::Data(Data { id, payload: null(Encoding::Json) })),
        (id(), id(), id()).prop_map(|(id, items, bytes)| Frame::Credit(Credit { id, items, bytes })),
        id().prop_map(|id| Frame::End(End { id })),
        (id(), fault()).prop_map(|(id, failure)| Frame::Abort(Abort { id, failure })),
    ];
    prop_oneof![sessions, calls].boxed()
}

fn string() -> BoxedStrategy<String> {
    prop_oneof![4 => "[a-z.]{0,12}", 1 => any::<String>(), 1 => "[a-zß漢🌋\"\\\\]{200,300}"].boxed()
}

fn text() -> BoxedStrategy<Text<'static>> {
    string().prop_map(Text::from).boxed()
}

fn event_id() -> BoxedStrategy<EventId> {
    (1_u64.., any::<u64>())
        .prop_map(|(process, sequence)| EventId::from_parts(process, sequence).expect("not zero"))
        .boxed()
}

fn trace() -> BoxedStrategy<TraceContext> {
    (1_u128.., 1_u64.., any::<u8>())
        .prop_map(|(trace, span, flags)| {
            format!("00-{trace:032x}-{span:016x}-{flags:02x}").parse().expect("a traceparent")
        })
        .boxed()
}

fn window() -> BoxedStrategy<Window> {
    (any::<u32>(), any::<u64>()).prop_map(|(calls, bytes)| Window { calls, bytes }).boxed()
}

fn hello() -> BoxedStrategy<Hello<'static>> {
    let role = prop_oneof![Just(Role::Worker), Just(Role::Client)];
    let handlers = vec(text().prop_map(|select| Handler { select }), 0..4);
    let session = of((of(text()), any::<u64>()).prop_map(|(id, received)| Resume { id, received }));
    let whose = (of(text()), of(text()));
    (any::<u32>(), role, text(), vec(declaration(), 0..4), handlers, window(), any::<u32>(), whose, session)
        .prop_map(|(version, role, agent, events, handlers, window, concurrency, (manager, token), session)| Hello {
            version,
            role,
            agent,
            events,
            handlers,
            window,
            concurrency,
            manager,
            token,
            session,
        })
        .boxed()
}

fn subscribe() -> BoxedStrategy<Subscribe<'static>> {
    let slow = prop_oneof![Just(Slow::Missed), Just(Slow::Bye)];
    let begin = (of(any::<u64>()), of(text()));
    (any::<u64>(), text(), of(text()), any::<u32>(), slow, of(any::<u64>()), begin)
        .prop_map(|(id, select, key, capacity, slow, credit, (last, since))| Subscribe {
            id,
            select,
            key,
            conditions: None,
            capacity,
            slow,
            credit,
            last,
            since,
        })
        .boxed()
}

fn welcome() -> BoxedStrategy<Welcome<'static>> {
    let session = of((text(), any::<u64>(), any::<bool>(), any::<u64>())
        .prop_map(|(id, keep_ms, resumed, received)| Session { id, keep_ms, resumed, received }));
    let limits = (any::<u32>(), any::<u64>(), any::<u64>());
    (any::<u32>(), text(), text(), of(text()), limits, window(), session)
        .prop_map(|(version, node, incarnation, manager, limits, window, session)| Welcome {
            version,
            node,
            incarnation,
            manager,
            instance: limits.0,
            silence_ms: limits.1,
            frame_bytes_max: limits.2,
            window,
            arguments: None,
            session,
        })
        .boxed()
}

fn declaration() -> BoxedStrategy<EventDeclaration> {
    let kind = prop_oneof![Just(Kind::Notification), Just(Kind::Request), Just(Kind::Tunnel)];
    let schemas = (of(schema()), of(schema()), of(schema()), of(schema()))
        .prop_map(|(event, output, up, down)| DeclaredSchemas { event, output, up, down });
    let cache = (any::<u64>(), any::<bool>(), vec(string(), 0..4))
        .prop_map(|(lifetime_ms, public, stale_on)| DeclaredCaching { lifetime_ms, public, stale_on });
    let page = (of(string()), of(string()), of(string()), of(cache));
    let expose = (vec(string(), 0..4), btree_map(string(), string(), 0..4), btree_map(string(), string(), 0..4), page)
        .prop_map(|(routes, headers, cookies, (page, form, then, cache))| DeclaredExposure {
            routes,
            headers,
            cookies,
            page,
            form,
            then,
            cache,
        });
    (string(), kind, of(string()), of(any::<u64>()), any::<bool>(), string(), of(expose), of(schemas))
        .prop_map(|(name, kind, key, time_limit_ms, idempotent, description, expose, schemas)| EventDeclaration {
            name,
            kind,
            key,
            time_limit_ms,
            idempotent,
            description,
            expose,
            schemas,
        })
        .boxed()
}

fn schema() -> BoxedStrategy<schemars::Schema> {
    prop_oneof![
        any::<bool>().prop_map(schemars::Schema::from),
        btree_map(string(), value(), 0..4)
            .prop_map(|map| schemars::Schema::from(map.into_iter().collect::<Map<String, Value>>())),
    ]
    .boxed()
}

fn value() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        string().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(string(), inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
    .boxed()
}

/// A null is the same as no payload.
fn payload() -> BoxedStrategy<Value> {
    value().prop_filter("null is no payload", |value| !value.is_null()).boxed()
}

fn call() -> BoxedStrategy<Call<'static>> {
    let ids = (of(event_id()), of(event_id()));
    let head = (any::<u64>(), text(), any::<u32>(), ids, of(text()), of(text()), of(any::<u64>()), of(trace()));
    let headers = btree_map(text(), text(), 0..4);
    let grant = (any::<u64>(), any::<u64>()).prop_map(|(items, bytes)| Grant { items, bytes });
    let of_subscription = (of(any::<u64>()), of(text()));
    let rest = (headers, any::<u32>(), any::<bool>(), of(text()), any::<bool>(), of(grant), of_subscription);
    (head, rest)
        .prop_map(|(head, rest)| {
            let (id, event, handler, (event_id, cause), origin, key, timeout_ms, trace) = head;
            let (headers, tried, redelivered, to, all, credit, (subscription, position)) = rest;
            Call {
                id,
                event,
                payload: None,
                handler,
                event_id,
                origin,
                key,
                cause,
                timeout_ms,
                trace,
                headers,
                tried,
                redelivered,
                to,
                all,
                credit,
                subscription,
                position,
            }
        })
        .boxed()
}

fn fault() -> BoxedStrategy<Fault<'static>> {
    let wait = (any::<u64>(), vec(text(), 0..4), vec(text(), 0..4)).prop_map(|(waited_ms, groups, cycle)| Wait {
        waited_ms,
        groups,
        cycle,
    });
    let field = (text(), text()).prop_map(|(field, message)| FieldFault { field, message });
    (text(), text(), of(text()), of(wait), vec(field, 0..4))
        .prop_map(|(code, message, detail, wait, errors)| Fault { code, message, detail, wait, errors })
        .boxed()
}

fn log() -> BoxedStrategy<Log<'static>> {
    let level =
        prop_oneof![Just(Level::Trace), Just(Level::Debug), Just(Level::Info), Just(Level::Warn), Just(Level::Error)];
    (level, text(), of(text()), of(event_id()))
        .prop_map(|(level, message, target, event_id)| Log { level, message, target, event_id })
        .boxed()
}

fn report() -> BoxedStrategy<Report<'static>> {
    let health = prop_oneof![Just(Health::Good), text().prop_map(Health::Degraded), text().prop_map(Health::Bad)];
    let figures = btree_map(text(), any::<f64>(), 0..5);
    (of(health), figures).prop_map(|(health, figures): (_, BTreeMap<_, _>)| Report { health, figures }).boxed()
}
