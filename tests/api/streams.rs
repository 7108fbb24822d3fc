//! Tunnels over HTTP: uploads and downloads of any size.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use edri::ApiLimits;
use edri::prelude::*;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt, StreamBody};
use hyper::Request;
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{address, ask, get};
use super::gateway;
use crate::support::{until, within};

#[event(tunnel, name = "stream.count", up = Bytes, down = (), result = u64, http = "PUT /count/{name}")]
struct Count {
    name: String,
}

/// Nobody takes what is sent.
#[event(tunnel, name = "stream.stall", up = Bytes, down = (), idle_timeout = "1s", http = "PUT /stall")]
struct Stall {}

#[event(tunnel, name = "stream.file", up = (), down = HttpPart, http = "GET /file/{bytes}")]
struct Download {
    bytes: u64,
    #[http(header = "range")]
    range: Option<String>,
}

#[event(tunnel, name = "stream.double", up = i64, down = i64, result = i64, http = "POST /double")]
struct Double {}

#[derive(Clone, Default)]
struct Streams {
    cancelled: Arc<AtomicU64>,
    taken: Arc<AtomicU64>,
}

impl Worker for Streams {}

const CHUNK: usize = 64 << 10;

impl HandleConcurrent<Count> for Streams {
    async fn handle(&self, count: &Count, cx: &mut Context) -> Result<u64, Failure> {
        let mut tunnel = cx.accept::<Count>()?;
        let mut bytes = 0;
        if count.name == "refused" {
            return Err(Failure::new("forbidden", "not this one"));
        }
        while let Some(chunk) = tunnel.recv().await? {
            bytes += chunk.len() as u64;
            self.taken.store(bytes, Ordering::Relaxed);
        }
        Ok(bytes)
    }
}

impl HandleConcurrent<Stall> for Streams {
    async fn handle(&self, _: &Stall, cx: &mut Context) -> Result<(), Failure> {
        let _tunnel = cx.accept::<Stall>()?;
        cx.cancelled().await;
        self.cancelled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl HandleConcurrent<Download> for Streams {
    async fn handle(&self, ask: &Download, cx: &mut Context) -> Result<(), Failure> {
        let mut tunnel = cx.accept::<Download>()?;
        if ask.bytes == 13 {
            return Err(Failure::new("not_found", "no such file"));
        }
        let (head, range) = HttpPart::head_for(ask.range.as_deref(), ask.bytes, "text/plain");
        tunnel.send(head).await?;
        let mut at = range.start;
        while at < range.end {
            let size = CHUNK.min((range.end - at) as usize);
            // Each byte says where it is.
            let bytes: Vec<u8> = (at..at + size as u64).map(|place| (place % 251) as u8).collect();
            if tunnel.send(HttpPart::Bytes(bytes.into())).await.is_err() {
                self.cancelled.fetch_add(1, Ordering::Relaxed);
                break;
            }
            at += size as u64;
            if ask.bytes == 1 << 20 && at > 500_000 {
                return Err(Failure::message("the disk broke"));
            }
        }
        Ok(())
    }
}

impl HandleConcurrent<Double> for Streams {
    async fn handle(&self, _: &Double, cx: &mut Context) -> Result<i64, Failure> {
        let mut tunnel = cx.accept::<Double>()?;
        let mut sum = 0;
        while let Some(number) = tunnel.recv().await? {
            sum += number;
            tunnel.send(2 * number).await?;
        }
        Ok(sum)
    }
}

async fn node(streams: &Streams) -> edri::Node {
    node_with(streams, gateway()).await
}

async fn node_with(streams: &Streams, api: Api) -> edri::Node {
    let streams = streams.clone();
    let manager = Manager::new("streams")
        .worker(move || streams.clone())
        .handles_concurrently::<Count>()
        .handles_concurrently::<Stall>()
        .handles_concurrently::<Download>()
        .handles_concurrently::<Double>();
    App::new("streams").manager(manager).api(api).start().await.expect("starts")
}

/// Sends so many chunks, as fast as they are taken; what was answered.
async fn upload(node: &edri::Node, path: &str, chunks: u64) -> (u16, Value) {
    let address = address(node);
    let stream = TcpStream::connect(address).await.expect("connects");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("shakes hands");
    let driving = tokio::spawn(connection);
    let chunk = Bytes::from(vec![7; CHUNK]);
    let frames =
        futures_util::stream::iter(0..chunks).map(move |_| Ok::<_, std::io::Error>(Frame::data(chunk.clone())));
    let request = Request::put(path).header("host", "localhost").body(StreamBody::new(frames)).expect("a request");
    let response = sender.send_request(request).await.expect("is answered");
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("comes whole").to_bytes();
    driving.abort();
    (status, serde_json::from_slice(&body).expect("JSON"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_goes_up_a_tunnel_chunk_by_chunk_and_its_result_is_the_answer() {
    let streams = Streams::default();
    let node = node(&streams).await;
    assert_eq!(within("64 MiB", upload(&node, "/count/x", 1024)).await, (200, json!(1024 * CHUNK)));
    assert_eq!(ask(&node, "PUT /count/empty", &[], "").await.json(), 0);
    let (status, problem) = within("a refusal", upload(&node, "/count/refused", 4)).await;
    assert_eq!((status, &problem["code"]), (403, &json!("forbidden")));
    node.shutdown().await;
}

/// What this process has in memory, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is there");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
}

/// Client and node are one process, so both are watched. Run alone: other tests have memory too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute; run before a release"]
async fn a_gibibyte_goes_up_and_comes_down_in_constant_memory() {
    const BYTES: u64 = 1 << 30;
    const GROWTH_MAX: u64 = 64 << 20;
    let streams = Streams::default();
    let node = node(&streams).await;
    // What is needed for any body is there then.
    upload(&node, "/count/x", 64).await;
    let (before, most) = (resident(), Arc::new(AtomicU64::new(0)));
    let watching = tokio::spawn({
        let most = Arc::clone(&most);
        async move {
            loop {
                most.fetch_max(resident(), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    let limit = Duration::from_secs(300);
    let began = std::time::Instant::now();
    let up = tokio::time::timeout(limit, upload(&node, "/count/x", BYTES / CHUNK as u64)).await.expect("it goes up");
    assert_eq!(up, (200, json!(BYTES)));
    let went_up = began.elapsed();
    let down = tokio::time::timeout(limit, download(&node, BYTES)).await.expect("it comes down");
    assert_eq!(down, BYTES);
    watching.abort();
    let grown = most.load(Ordering::Relaxed).saturating_sub(before);
    let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "up in {went_up:?}, all in {:?}; {:.1} MiB before, {:.1} more at most",
        began.elapsed(),
        megabytes(before),
        megabytes(grown)
    );
    assert!(grown < GROWTH_MAX, "{:.1} MiB more", megabytes(grown));
    node.shutdown().await;
}

/// Takes a download as it comes, and keeps nothing of it; how long it was.
async fn download(node: &edri::Node, bytes: u64) -> u64 {
    let stream = TcpStream::connect(address(node)).await.expect("connects");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("shakes hands");
    let driving = tokio::spawn(connection);
    let request = Request::get(format!("/file/{bytes}")).header("host", "localhost").body(String::new());
    let response = sender.send_request(request.expect("a request")).await.expect("is answered");
    let mut body = response.into_body();
    let mut came = 0;
    while let Some(frame) = body.frame().await {
        came += frame.expect("goes on").data_ref().map_or(0, |data| data.len() as u64);
    }
    driving.abort();
    came
}

#[tokio::test]
async fn a_worker_that_takes_nothing_makes_the_client_wait_until_the_tunnel_has_idled_for_too_long() {
    let streams = Streams::default();
    let node = node(&streams).await;
    // 1 GiB, of which only what the tunnel and the sockets hold is taken.
    let (status, problem) = within("its end", upload(&node, "/stall", 16 << 10)).await;
    assert_eq!((status, &problem["code"]), (504, &json!("timed_out")), "{problem}");
    until("its handler to be cancelled", || streams.cancelled.load(Ordering::Relaxed) == 1).await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_client_that_leaves_in_a_download_or_an_upload_ends_its_handler() {
    let streams = Streams::default();
    let node = node(&streams).await;
    let download = tokio::time::timeout(Duration::from_millis(100), get(&node, "/file/9000000000"));
    assert!(download.await.is_err(), "it does not end");
    until("its handler to be told", || streams.cancelled.load(Ordering::Relaxed) == 1).await;
    let mut stream = TcpStream::connect(address(&node)).await.expect("connects");
    let head = b"PUT /count/half HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nhalf of it";
    stream.write_all(head).await.expect("is sent");
    until("what was sent to be taken", || streams.taken.load(Ordering::Relaxed) == 10).await;
    drop(stream);
    within("the node to be at rest", node.at_rest()).await;
    node.shutdown().await;
}

#[tokio::test]
async fn an_upload_that_stands_still_is_refused_and_ends_its_handler() {
    let mut limits = ApiLimits::default();
    limits.body_idle = Duration::from_millis(100);
    let node = node_with(&Streams::default(), gateway().limits(limits)).await;
    let mut stream = TcpStream::connect(address(&node)).await.expect("connects");
    let head = b"PUT /count/half HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nhalf of it";
    stream.write_all(head).await.expect("is sent");
    let mut answer = [0; 12];
    within("the refusal", stream.read_exact(&mut answer)).await.expect("is answered");
    assert_eq!(&answer, b"HTTP/1.1 408");
    within("the node to be at rest", node.at_rest()).await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_download_comes_down_a_tunnel_whole_or_in_the_range_asked_for() {
    let streams = Streams::default();
    let node = node(&streams).await;
    let whole = get(&node, "/file/200000").await;
    assert_eq!((whole.status.as_u16(), whole.header("content-length")), (200, "200000"));
    assert_eq!((whole.header("content-type"), whole.header("accept-ranges")), ("text/plain", "bytes"));
    let part = ask(&node, "GET /file/200000", &[("range", "bytes=1000-70999")], "").await;
    assert_eq!((part.status.as_u16(), part.header("content-range")), (206, "bytes 1000-70999/200000"));
    assert_eq!(part.body, whole.body.slice(1000..71000));
    let none = ask(&node, "GET /file/200000", &[("range", "bytes=200000-")], "").await;
    assert_eq!((none.status.as_u16(), none.header("content-range")), (416, "bytes */200000"));
    let missing = get(&node, "/file/13").await;
    assert_eq!((missing.status.as_u16(), &missing.json()["code"]), (404, &json!("not_found")));
    node.shutdown().await;
}

#[tokio::test]
async fn a_download_that_breaks_is_seen_to_be_broken() {
    let streams = Streams::default();
    let node = node(&streams).await;
    let stream = TcpStream::connect(address(&node)).await.expect("connects");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("shakes hands");
    let driving = tokio::spawn(connection);
    let request = Request::get("/file/1048576").header("host", "localhost").body(String::new()).expect("a request");
    let response = within("the head", sender.send_request(request)).await.expect("is answered");
    assert_eq!(response.status(), 200);
    assert!(within("its end", response.into_body().collect()).await.is_err(), "it is not whole");
    driving.abort();
    node.shutdown().await;
}

#[tokio::test]
async fn items_that_are_no_bytes_travel_as_lines() {
    let streams = Streams::default();
    let node = node(&streams).await;
    let lines = "1\n 2 \n\n3";
    assert_eq!(ask(&node, "POST /double", &[], lines).await.json(), 6, "the result alone");
    let all = ask(&node, "POST /double", &[("accept", "application/x-ndjson")], lines).await;
    let expect = "{\"item\":2}\n{\"item\":4}\n{\"item\":6}\n{\"result\":6}\n";
    assert_eq!((all.header("content-type"), &*all.body), ("application/x-ndjson", expect.as_bytes()));
    let wrong = ask(&node, "POST /double", &[], "1\nx\n").await;
    assert_eq!((wrong.status.as_u16(), &wrong.json()["code"]), (400, &json!("invalid_payload")));
    let wrong = ask(&node, "POST /double", &[("accept", "application/x-ndjson")], "1\n\"x\"\n").await;
    let last: Value =
        serde_json::from_slice(wrong.body.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).expect("a line"))
            .expect("JSON");
    let detail = last["problem"]["detail"].as_str().expect("a text");
    assert!(detail.contains("decode i64"), "{wrong:?}");
    node.shutdown().await;
}
