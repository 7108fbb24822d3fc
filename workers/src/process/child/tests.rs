//! The child's side over a socket pair, with a node that says what the test says.

mod node;
mod worker;

use std::io::Write;

use edri_events::{EventId, TraceContext};
use edri_protocol::{Cancel, Credit, Data, Payload, Response};

use self::node::*;
use self::worker::*;
use super::*;

fn plain() -> Tester {
    Tester::default()
}

#[test]
fn a_worker_says_what_it_handles_and_lives_in_order() {
    let (mut node, hello) = Node::met(hosted(plain));
    assert_eq!((hello.version, hello.role), (VERSION, Role::Worker));
    let selects: Vec<_> = hello.handlers.iter().map(|handler| handler.select.to_string()).collect();
    assert_eq!(selects, ["test.noted", "test.ask", "test.beside", "test.pipe", "any.>"]);
    assert_eq!(hello.events.len(), 4);
    assert_eq!(hello.window, Window { calls: 64, bytes: 8 << 20 });
    node.send(&Frame::Welcome(Node::welcome()));
    assert!(matches!(node.next(), Frame::Report(_)));
    assert!(matches!(node.next(), Frame::Ready(_)));
    let id = node.ask("hello");
    let response = node.response();
    assert_eq!((response.id, value::<String>(&response)), (id, "HELLO".to_owned()));
    node.send(&Frame::Ping(Ping { id: 9 }));
    assert!(matches!(node.next(), Frame::Pong(Pong { id: 9 })));
    node.bye();
}

#[test]
fn notifications_are_acked_and_their_failures_told() {
    let mut node = Node::ready(plain);
    let first = node.note("x");
    let second = node.note("y");
    node.acked(first);
    node.acked(second);
    assert_eq!(node.begun, second);
    let failing = node.note("fail");
    let response = node.response();
    let failure = response.failure.expect("failed");
    assert_eq!((response.id, &*failure.code, &*failure.message), (failing, "broken", "as asked"));
    assert_eq!(failure.detail.as_deref(), Some("line 1"));
    let untyped = node.call(ANY, &Noted { what: String::new() }, |call| call.event = "any.thing.at.all".into());
    let response = node.response();
    assert_eq!(response.id, untyped);
    assert_eq!(response.failure.expect("failed").message, "any.thing.at.all".into());
    node.bye();
}

#[test]
fn what_is_begun_is_told_before_and_no_more_than_that() {
    let mut node = Node::ready(plain);
    // The first event is begun alone, and keeps the worker.
    let first = node.ask("node");
    let (_, call) = node.called();
    assert_eq!(node.begun, first);
    let others: Vec<u64> = (0..10).map(|_| node.note("x")).collect();
    let asked = node.ask("after");
    node.answer(call.id, &1_u64);
    assert_eq!(node.response().id, first);
    assert_eq!(node.response().id, asked, "in their order");
    node.acked(others[9]);
    assert_eq!(node.begun, asked);
    node.bye();
}

#[test]
fn a_panic_answers_what_was_in_hand_and_leaves_the_rest() {
    let mut node = Node::ready(plain);
    let panicking = node.note("panic");
    let left = node.ask("left");
    let response = node.response();
    let error = response.error.expect("an error of edri");
    assert_eq!((response.id, &*error.code, &*error.message), (panicking, "worker_lost", "panicked: at the disco"));
    match node.next() {
        Frame::Bye(bye) => assert_eq!(bye.error.expect("not as it should").message, "panicked: at the disco".into()),
        other => panic!("{other:?}"),
    }
    assert!(node.try_frame().is_none());
    assert!(node.begun < left);
    assert_ne!(node.joined(), 0);
}

#[test]
fn a_panic_beside_others_lets_them_end() {
    let mut node = Node::ready(plain);
    let first = node.call(BESIDE, &Beside { number: 1 }, |_| {});
    let (_, call) = node.called();
    let unlucky = node.call(BESIDE, &Beside { number: 13 }, |_| {});
    node.send(&Frame::Ping(Ping { id: 1 }));
    assert!(matches!(node.next(), Frame::Pong(_)));
    while node.begun < unlucky {
        let Frame::Ack(ack) = node.frame() else { panic!("an ack") };
        node.ack(&ack);
    }
    node.answer(call.id, &10_u64);
    let mut responses = [node.response(), node.response()];
    responses.sort_by_key(|response| response.id);
    assert_eq!((responses[0].id, value::<u64>(&responses[0])), (first, 10));
    assert_eq!(responses[1].error.as_ref().map(|error| &*error.code), Some("worker_lost"));
    assert!(matches!(node.next(), Frame::Bye(Bye { error: Some(_) })));
    assert_ne!(node.joined(), 0);
}

#[test]
fn a_deferred_reply_keeps_the_call_open_and_the_worker_free() {
    let mut node = Node::ready(plain);
    let deferred = node.ask("defer");
    let other = node.ask("meanwhile");
    assert_eq!(node.response().id, other);
    let answering = node.ask("answer kept");
    let response = node.response();
    assert_eq!((response.id, value::<String>(&response)), (deferred, "later".to_owned()));
    let response = node.response();
    assert_eq!((response.id, value::<String>(&response)), (answering, "true".to_owned()));
    node.bye();
}

#[test]
fn a_bye_waits_for_what_is_open_and_takes_nothing_new() {
    let mut node = Node::ready(plain);
    let asked = node.ask("node");
    let (_, call) = node.called();
    node.send(&Frame::Bye(Bye::default()));
    let late = node.ask("late");
    let response = node.response();
    assert_eq!((response.id, response.error.expect("refused").code), (late, "stopping".into()));
    node.answer(call.id, &5_u64);
    assert_eq!(node.response().id, asked);
    let (_, call) = node.called();
    node.answer(call.id, &serde_json::json!({"id": EventId::next(), "groups": 0}));
    assert!(matches!(node.next(), Frame::Bye(Bye { error: None })));
    assert_eq!(node.joined(), 0);
}

#[test]
fn concurrent_handlers_run_beside_one_another() {
    let mut node = Node::ready(plain);
    let ids: Vec<u64> = (0..4).map(|number| node.call(BESIDE, &Beside { number }, |_| {})).collect();
    let calls: Vec<_> = (0..4).map(|_| node.called().1.id).collect();
    for call in calls.iter().rev() {
        node.answer(*call, call);
    }
    let mut answered: Vec<u64> = (0..4).map(|_| node.response().id).collect();
    answered.sort_unstable();
    assert_eq!(answered, ids);
    node.bye();
}

#[test]
fn a_cancelled_call_is_answered_all_the_same() {
    let mut node = Node::ready(plain);
    let running = node.ask("cancelled");
    let waiting = node.ask("never begun");
    while node.begun < running {
        let Frame::Ack(ack) = node.frame() else { panic!("an ack") };
        node.ack(&ack);
    }
    node.send(&Frame::Cancel(Cancel { id: waiting }));
    let response = node.response();
    assert_eq!((response.id, response.error.expect("not begun").code), (waiting, "cancelled".into()));
    node.send(&Frame::Cancel(Cancel { id: running }));
    assert_eq!(node.response().id, running);
    node.bye();
}

#[test]
fn a_handler_knows_all_of_its_event() {
    let mut node = Node::ready(plain);
    let (id, cause) = (EventId::next(), EventId::next());
    let trace = TraceContext::root(cause);
    node.call(ASK, &Ask { what: "who".to_owned() }, |call| {
        call.event_id = Some(id);
        call.cause = Some(cause);
        call.trace = Some(trace);
        call.origin = Some("observatory/asker".into());
        call.timeout_ms = Some(5000);
        call.tried = 2;
        call.redelivered = true;
        call.headers.insert("tenant".into(), "north".into());
    });
    let text: String = value(&node.response());
    let expect = format!(
        "{id} {trace} from observatory/asker@00000000000000ab as observatory/tester@00000000000000ab try 3 true \
         Some(\"north\") true"
    );
    assert_eq!(text, expect);
    node.bye();
}

#[test]
fn what_a_handler_sends_follows_from_its_event() {
    let mut node = Node::ready(plain);
    let (id, trace) = (EventId::next(), TraceContext::root(EventId::next()));
    node.call(ASK, &Ask { what: "node".to_owned() }, |call| {
        call.event_id = Some(id);
        call.trace = Some(trace);
        call.timeout_ms = Some(100);
    });
    match node.next() {
        Frame::Declare(declare) => assert_eq!(declare.events[0].name, "node.ask"),
        other => panic!("{other:?}"),
    }
    let (verb, call) = node.called();
    assert_eq!((verb, &*call.event, call.id % 2), ("request", "node.ask", 1));
    assert_eq!(call.cause, Some(id));
    assert_eq!(call.trace.map(|child| child.trace_id()), Some(trace.trace_id()));
    assert!(call.timeout_ms.is_some_and(|left| left <= 100), "no more than the event has left");
    assert_eq!(call.origin, None);
    node.answer(call.id, &21_u64);
    assert_eq!(value::<String>(&node.response()), "21");
    // A name of which only the node knows, with bytes and with a value.
    for what in ["untyped", "described"] {
        node.ask(what);
        let (_, call) = node.called();
        assert_eq!(&*call.event, "node.unseen");
        let bytes = call.payload.expect("sent");
        let payload: serde_json::Value = Encoding::MessagePack.decode(bytes.bytes()).expect("a map");
        assert_eq!(payload, serde_json::json!({"a": 1}));
        node.answer(call.id, &3_u64);
        assert_eq!(value::<String>(&node.response()), "3");
    }
    node.ask("node to");
    let (_, call) = node.called();
    assert_eq!(call.to.as_deref(), Some("other"));
    node.answer(call.id, &4_u64);
    assert_eq!(value::<String>(&node.response()), "4");
    node.bye();
}

#[test]
fn errors_of_the_node_keep_their_codes() {
    let mut node = Node::ready(plain);
    for code in ["no_handler", "overloaded", "timed_out", "worker_lost", "peer_lost", "unknown_event", "stopping"] {
        node.ask("node");
        let (_, call) = node.called();
        node.refuse(call.id, Fault { code: code.into(), message: "says the node".into(), ..Fault::default() });
        assert_eq!(node.response().failure.expect("failed").code, code.into());
        node.note("publish_code");
        let (verb, call) = node.called();
        assert_eq!(verb, "publish");
        node.refuse(call.id, Fault { code: code.into(), message: "says the node".into(), ..Fault::default() });
        assert_eq!(node.response().failure.expect("failed").code, code.into());
    }
    node.bye();
}

#[test]
fn a_request_that_the_node_does_not_answer_ends_at_its_deadline() {
    let mut node = Node::ready(plain);
    node.ask("node");
    let (_, call) = node.called();
    match node.next() {
        Frame::Cancel(cancel) => assert_eq!(cancel.id, call.id),
        other => panic!("{other:?}"),
    }
    assert_eq!(node.response().failure.expect("failed").code, "timed_out".into());
    node.answer(call.id, &1_u64);
    node.ask("drop");
    let (_, call) = node.called();
    assert!(matches!(node.next(), Frame::Cancel(cancel) if cancel.id == call.id));
    assert_eq!(value::<String>(&node.response()), "true");
    node.bye();
}

#[test]
fn everybody_is_asked_and_answers_as_it_comes() {
    let mut node = Node::ready(plain);
    node.ask("all");
    let (_, call) = node.called();
    assert!(call.all);
    let one = body(&1_u64);
    let value_of_one = Some(Payload::new(Encoding::MessagePack, &one));
    let answer = Response { id: call.id, from: Some("a".into()), more: true, ..Response::default() };
    node.send(&Frame::Response(Response { value: value_of_one, ..answer.clone() }));
    let error = Some(Fault { code: "worker_lost".into(), ..Fault::default() });
    node.send(&Frame::Response(Response { from: Some("b".into()), error, ..answer }));
    node.send(&Frame::Response(Response { id: call.id, ..Response::default() }));
    assert_eq!(value::<String>(&node.response()), "a 1, b worker_lost");
    node.ask("all");
    let (_, call) = node.called();
    node.refuse(call.id, Fault { code: "no_handler".into(), ..Fault::default() });
    assert_eq!(node.response().failure.expect("nobody").code, "no_handler".into());
    node.bye();
}

#[test]
fn publishing_waits_for_the_node_s_word_and_its_window() {
    let mut node = Node::ready(plain);
    let noted = node.note("publish");
    let (_, call) = node.called();
    let receipt = |groups| serde_json::json!({"id": EventId::next(), "groups": groups});
    node.answer(call.id, &receipt(3));
    node.acked(noted);
    let noted = node.note("batch");
    let calls: Vec<_> = (0..WINDOW.calls).map(|_| node.called().1.id).collect();
    node.send(&Frame::Ping(Ping { id: 1 }));
    assert!(matches!(node.next(), Frame::Pong(_)), "the fifth waits for room");
    for call in calls {
        node.answer(call, &receipt(1));
    }
    let (_, call) = node.called();
    node.answer(call.id, &receipt(1));
    node.acked(noted);
    node.note("try");
    assert_eq!(node.called().0, "publish");
    for _ in 1..WINDOW.calls {
        node.called();
    }
    let failure = node.response().failure.expect("full");
    assert_eq!((&*failure.code, &*failure.message), ("full", "4"));
    node.note("subscribe");
    assert_eq!(node.response().failure.expect("refused").code, "unsupported".into());
    // The window is still taken by what was tried.
    node.send(&Frame::Window(Window { calls: 5, ..WINDOW }));
    node.bye();
}

#[test]
fn a_tunnel_of_the_node_runs_both_ways_and_ends_with_its_result() {
    for fail in [false, true] {
        let mut node = Node::ready(plain);
        let credit = Grant { items: 2, bytes: 1000 };
        let id = node.call(PIPE, &Pipe { fail }, |call| call.credit = Some(credit));
        match node.next() {
            Frame::Credit(credit) => assert!(credit.id == id && credit.items > 10),
            other => panic!("{other:?}"),
        }
        for item in 1..=3_u64 {
            let item = body(&item);
            node.send(&Frame::Data(Data { id, payload: Payload::new(Encoding::MessagePack, &item) }));
        }
        node.send(&Frame::End(edri_protocol::End { id }));
        let item = |node: &mut Node| match node.next() {
            Frame::Data(data) => Encoding::MessagePack.decode::<u64>(data.payload.bytes()).expect("a number"),
            other => panic!("{other:?}"),
        };
        assert_eq!((item(&mut node), item(&mut node)), (10, 20));
        node.send(&Frame::Ping(Ping { id: 1 }));
        assert!(matches!(node.next(), Frame::Pong(_)), "the third waits for credit, and the response for it");
        node.send(&Frame::Credit(Credit { id, items: 5, bytes: 0 }));
        assert_eq!(item(&mut node), 30);
        let response = node.response();
        match fail {
            false => assert_eq!(value::<u64>(&response), 6),
            true => assert_eq!(response.failure.expect("failed").code, "enough".into()),
        }
        node.bye();
    }
}

#[test]
fn a_cancelled_tunnel_breaks_for_its_worker() {
    let mut node = Node::ready(plain);
    let id = node.call(PIPE, &Pipe { fail: false }, |_| {});
    assert!(matches!(node.next(), Frame::Credit(_)));
    node.send(&Frame::Cancel(Cancel { id }));
    let response = node.response();
    assert_eq!(response.id, id);
    assert!(response.value.is_none());
    node.bye();
}

#[test]
fn a_tunnel_of_the_worker_runs_both_ways() {
    let mut node = Node::ready(plain);
    node.ask("open");
    let (verb, call) = node.called();
    let id = call.id;
    assert_eq!(verb, "open");
    assert!(call.credit.is_some_and(|credit| credit.items > 0));
    node.send(&Frame::Credit(Credit { id, items: 10, bytes: 10_000 }));
    for expect in 0..3_u64 {
        match node.next() {
            Frame::Data(data) => assert_eq!(data.payload.bytes(), body(&expect)),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(node.next(), Frame::End(_)));
    let item = body(&40_u64);
    node.send(&Frame::Data(Data { id, payload: Payload::new(Encoding::MessagePack, &item) }));
    node.answer(id, &2_u64);
    assert_eq!(value::<String>(&node.response()), "42");
    // Nobody takes it.
    node.ask("open");
    let (_, call) = node.called();
    node.refuse(call.id, Fault { code: "no_handler".into(), ..Fault::default() });
    assert_eq!(node.response().failure.expect("told at once").code, "no_handler".into());
    node.bye();
}

#[test]
fn a_worker_that_cannot_start_says_so() {
    let (mut node, _) = Node::met(hosted(|| Tester { fail_start: true, ..Tester::default() }));
    node.send(&Frame::Welcome(Node::welcome()));
    match node.next() {
        Frame::Bye(Bye { error: Some(error) }) => {
            assert_eq!(&*error.code, "start_failed");
            assert!(error.message.contains("there is no disk"), "{error:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_ne!(node.joined(), 0);
}

#[test]
fn a_node_that_is_gone_ends_the_process_whatever_its_handler_does() {
    let mut node = Node::ready(plain);
    let spinning = node.note("spin");
    while node.begun < spinning {
        let Frame::Ack(ack) = node.frame() else { panic!("an ack") };
        node.ack(&ack);
    }
    node.stream.shutdown(std::net::Shutdown::Both).expect("open");
    assert_eq!(node.joined(), 0);
}

#[test]
fn a_handler_that_computes_keeps_neither_pings_nor_earlier_answers() {
    let mut node = Node::ready(plain);
    let ids: Vec<u64> = (0..64).map(|_| node.ask("x")).collect();
    node.note("spin");
    for id in ids {
        assert_eq!(node.response().id, id);
    }
    node.send(&Frame::Ping(Ping { id: 3 }));
    assert!(matches!(node.next(), Frame::Pong(Pong { id: 3 })));
    node.stream.shutdown(std::net::Shutdown::Both).expect("open");
    assert_eq!(node.joined(), 0);
}

#[test]
fn rubbish_is_answered_and_ends_the_connection() {
    let mut node = Node::ready(plain);
    node.stream.write_all(b"\x00\x00\x00\x03abc").expect("open");
    assert!(matches!(node.next(), Frame::Error(error) if &*error.code == "malformed_frame"));
    assert_ne!(node.joined(), 0);
    let mut node = Node::ready(plain);
    node.stream.write_all(b"\xff\xff\xff\xff").expect("open");
    assert!(matches!(node.next(), Frame::Error(error) if &*error.code == "frame_too_long"));
    assert_ne!(node.joined(), 0);
}

#[test]
fn what_has_no_place_is_answered_and_nothing_else_happens() {
    let mut node = Node::ready(plain);
    let mut objection = |frame: Frame<'_>| {
        node.send(&frame);
        match node.next() {
            Frame::Error(error) => error.code.to_string(),
            Frame::Response(response) => response.error.expect("an error").code.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let call =
        |id, event: &'static str, handler| CallFrame { id, event: event.into(), handler, ..CallFrame::default() };
    assert_eq!(objection(Frame::Hello(hosted(plain).hello())), "out_of_order");
    assert_eq!(objection(Frame::Unsubscribe(edri_protocol::Unsubscribe { id: 1 })), "unsupported");
    assert_eq!(objection(Frame::Request(call(0, "test.ask", ASK))), "out_of_order");
    assert_eq!(objection(Frame::Request(call(7, "test.ask", ASK))), "out_of_order");
    assert_eq!(objection(Frame::Request(call(100, "test.ask", 99))), "no_handler");
    assert_eq!(objection(Frame::Request(call(100, "test.ask", ASK))), "out_of_order");
    assert_eq!(objection(Frame::Request(call(102, "test.asked", ASK))), "no_handler");
    assert_eq!(objection(Frame::Publish(call(104, "test.ask", ASK))), "wrong_kind");
    assert_eq!(objection(Frame::Response(Response { id: 55, ..Response::default() })), "unknown_call");
    node.next = 200;
    node.call(ASK, &Ask { what: "x".to_owned() }, |call| {
        call.payload = Some(Payload::new(Encoding::MessagePack, b"\x07"))
    });
    assert_eq!(node.response().failure.expect("not an `Ask`").code, "invalid_payload".into());
    node.bye();
}
