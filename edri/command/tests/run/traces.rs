//! Spans, as a collector is told of them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use crate::support::{Folder, Running, edri, http_with, python, repository, run, text, until};

/// Spans with the node that has sent them.
type Collected = Arc<Mutex<Vec<(String, Span)>>>;

/// What stands in for a collector: it decodes what it is sent.
fn collector() -> (String, Collected) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("is bound");
    let url = format!("http://{}/v1/traces", listener.local_addr().expect("is bound"));
    let collected = Collected::default();
    let spans = Arc::clone(&collected);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            take(stream.expect("is accepted"), &spans);
        }
    });
    (url, collected)
}

fn take(stream: TcpStream, spans: &Collected) {
    let mut reader = BufReader::new(&stream);
    let mut length = 0;
    let mut line = String::new();
    let mut head = String::new();
    while reader.read_line(&mut line).is_ok() && line.trim() != "" {
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        head += &lower;
        line.clear();
    }
    assert!(head.starts_with("post /v1/traces ") && head.contains("content-type: application/x-protobuf"), "{head}");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("is read");
    let request = ExportTraceServiceRequest::decode(&body[..]).expect("it is what OTLP says");
    for resource in request.resource_spans {
        let attributes = &resource.resource.as_ref().expect("is said").attributes;
        let instance = attributes.iter().find(|one| one.key == "service.instance.id").expect("is said");
        let Some(Value::StringValue(node)) = instance.value.as_ref().and_then(|value| value.value.clone()) else {
            panic!("{instance:?}")
        };
        let found = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.lock().expect("is held by no one else").extend(found.map(|span| (node.clone(), span)));
    }
    (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("is answered");
}

#[test]
fn a_collector_is_told_of_request_hop_handling_and_what_follows_as_one_trace() {
    let (folder, (url, collected)) = (Folder::new(), collector());
    let authority = folder.0.join("authority");
    assert!(run(&mut edri(&["keys", "init", text(&authority)])).status.success());
    for name in ["north", "south"] {
        assert!(run(&mut edri(&["keys", "node", text(&authority), name])).status.success());
    }
    let port = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("is bound").port();
    let worker = repository().join("examples/python-service/worker.py");
    let north = format!(
        "name = \"north\"\n[traces]\notlp = \"{url}\"\n[links]\nidentity = \"north\"\nlisten = \"127.0.0.1:{port}\"\n\
         [managers.greetings]\ncommand = \"{}\"\ninterpreter = \"{}\"\n",
        worker.display(),
        python().display()
    );
    let south = format!(
        "name = \"south\"\n[traces]\notlp = \"{url}\"\n[links]\nidentity = \"south\"\nconnect = [\"127.0.0.1:{port}\"]\n\
         expects = [\"north\"]\n[api]\nbind = \"127.0.0.1:0\"\nopen = true\n[events.\"greeting.ask\"]\nkind = \"request\"\n\
         expose = true\n"
    );
    let (north, south) = (folder.write("north.toml", &north), folder.write("south.toml", &south));
    let north = Running::start(&mut edri(&["run", text(&north)]));
    let mut south = Running::start(&mut edri(&["run", text(&south)]));
    let traceparent = "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    let asked = http_with(south.gateway(), "POST", "/events/greeting.ask", traceparent, r#"{"name": "Ada"}"#);
    assert_eq!(asked, (200, r#"{"text":"Hello, Ada!"}"#.to_owned()));
    // What waits to be sent is sent before the end.
    assert_eq!((south.end().0, north.end().0), (Some(0), Some(0)));

    let find = |node: &str, name: &str| {
        let spans = collected.lock().expect("is held by no one else");
        spans.iter().find(|(of, span)| of == node && span.name == name).map(|(_, span)| span.clone())
    };
    until("all spans", || {
        find("north", "publish greeting.given").is_some() && find("south", "request greeting.ask").is_some()
    });
    let wanted = |node: &str, name: &str| find(node, name).unwrap_or_else(|| panic!("no span `{name}` of {node}"));
    let request = wanted("south", "request greeting.ask");
    let hop = wanted("north", "hop greeting.ask");
    let handle = wanted("north", "handle greeting.ask");
    let publish = wanted("north", "publish greeting.given");
    for span in [&request, &hop, &handle, &publish] {
        let trace: String = span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(trace, "0af7651916cd43dd8448eb211c80319c", "{}", span.name);
        assert!(span.span_id.len() == 8 && span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
    }
    for inner in [&hop, &handle, &publish] {
        assert_eq!(inner.parent_span_id, request.span_id, "{}", inner.name);
    }
    assert!(handle.start_time_unix_nano <= publish.start_time_unix_nano);
}

/// Gives back what comes, and answers.
const WORKER: &str = r#"
from edri_sdk import Worker

worker = Worker()

@worker.tunnel("echo.items", up=int, down=int, result=int, expose=True)
async def echo(ask: dict, tunnel, cx) -> int:
    count = 0
    async for item in tunnel:
        await tunnel.send(item)
        count += 1
    return count

@worker.request("echo.one", response=int, expose=True)
async def one(ask: dict) -> int:
    return 1

worker.run()
"#;

/// A node with [`WORKER`] under two names, so that a request to all has two answers.
fn echo(url: &str, share: &str) -> (Folder, Running) {
    let folder = Folder::new();
    folder.write("worker.py", WORKER);
    let program = format!("command = \"worker.py\"\ninterpreter = \"{}\"\n", python().display());
    let file = format!(
        "name = \"echo\"\n[traces]\notlp = \"{url}\"\nshare = {share}\n[api]\nbind = \"127.0.0.1:0\"\nopen = true\n\
         [managers.first]\n{program}[managers.second]\n{program}"
    );
    let node = Running::start(&mut edri(&["run", text(&folder.write("edri.toml", &file))]));
    (folder, node)
}

#[test]
fn a_tunnel_and_a_request_to_all_are_one_span_each_with_their_handlings_below() {
    let (url, collected) = collector();
    let (_folder, mut node) = echo(&url, "1.0");
    let gateway = format!("http://{}", node.gateway());
    let used = |arguments: &[&str]| {
        let output = run(edri(arguments).env("EDRI_URL", &gateway));
        assert!(output.status.success(), "{output:?}");
    };
    used(&["tunnel", "echo.items", "--to", "second"]);
    used(&["request", "echo.one", "--all"]);
    assert_eq!(node.end().0, Some(0));
    let spans = |name: &str| {
        let spans = collected.lock().expect("is held by no one else");
        spans.iter().filter(|(_, span)| span.name == name).map(|(_, span)| span.clone()).collect::<Vec<_>>()
    };
    until("all spans", || spans("handle echo.one").len() == 2 && spans("handle echo.items").len() == 1);
    for (sent, handled) in [("tunnel echo.items", "handle echo.items"), ("request echo.one", "handle echo.one")] {
        let found = spans(sent);
        assert_eq!(found.len(), 1, "{sent}: {found:?}");
        for handle in spans(handled) {
            assert_eq!(handle.parent_span_id, found[0].span_id, "{handled}");
            assert_eq!(handle.trace_id, found[0].trace_id, "{handled}");
        }
    }
}

#[test]
fn traces_that_begin_here_are_recorded_by_their_share_and_others_as_they_say() {
    let (url, collected) = collector();
    let (_folder, mut node) = echo(&url, "0.0");
    let gateway = node.gateway();
    let ask = |headers: &str| assert_eq!(http_with(gateway, "POST", "/events/echo.one", headers, "{}").0, 200);
    ask("");
    ask("Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\n");
    ask("Traceparent: 00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n");
    assert_eq!(node.end().0, Some(0));
    until("the spans", || collected.lock().expect("is held by no one else").len() >= 2);
    let spans = collected.lock().expect("is held by no one else");
    assert_eq!(spans.len(), 2, "{spans:?}");
    assert!(spans.iter().all(|(_, span)| span.trace_id[0] == 0x1a), "{spans:?}");
}

#[test]
fn a_node_runs_on_without_its_collector_and_says_that_spans_were_lost() {
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("is bound");
    let mut command = edri(&["run"]);
    command.env("EDRI__API__BIND", "127.0.0.1:0").env("EDRI__API__OPEN", "true");
    command.env("EDRI__TRACES__OTLP", format!("http://{closed}/v1/traces"));
    let mut node = Running::start(&mut command);
    let counted = http_with(node.gateway(), "POST", "/events/store.default.count", "", r#"{"prefix": ""}"#);
    assert_eq!(counted.0, 200);
    let (code, log) = node.end();
    assert_eq!(code, Some(0));
    assert!(log.contains("spans did not reach the collector"), "{log}");
}
