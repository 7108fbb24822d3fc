//! The gateway beside a bare server of the same library: 64 connections, each of which asks and waits for its answer.
//!
//! The client is the same for both sides and does as little as it can: it writes the same bytes and reads until the answer is
//! there.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::routing::post;
use axum::{Json, Router};
use edri::{Api, App, Manager, Node};
use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::Result;
use crate::case::{Case, Figures};
use crate::event::{Ask, Oracle, stop};
use crate::harness::{Plan, Side, compare, median};
use crate::idle_sockets;
use crate::paced::{Latency, paced};

/// In the order they are run. The budgets are those of the project's plan.
pub(crate) const HTTP: &[Case] = &[
    Case::new("http.request64", "requests/s", 0.8, |plan| Box::pin(http64(plan))),
    Case::informing("http.half_load", "us p99", |plan| Box::pin(http_half(plan))),
    Case::new("http.wrk64", "requests/s", 0.8, |plan| Box::pin(http_wrk(plan))).needs(wrk_missing),
];
pub(crate) const WEBSOCKET: &[Case] = &[
    Case::new("websocket.request64", "requests/s", 0.8, |plan| Box::pin(websocket64(plan))),
    Case::informing("websocket.half_load", "us p99", |plan| Box::pin(websocket_half(plan))),
    Case::new("idle.websockets", "MB", 1.0, |plan| Box::pin(idle_sockets::measure(plan))).needs(idle_sockets::missing),
];

/// How many connections ask at once.
const CONNECTIONS: usize = 64;

async fn gate() -> Result<Node> {
    let oracle = Manager::new("oracle").worker(Oracle::default).handles::<Ask>();
    let api = Api::bind("127.0.0.1:0").expose("bench.ask").route("POST /ask", "bench.ask");
    Ok(App::new("bench").manager(oracle).api(api).start().await?)
}

fn address(node: &Node) -> Result<SocketAddr> {
    node.api_address().ok_or_else(|| "the node has no gateway".into())
}

/// A server that ends with the benchmark.
struct Server(AbortHandle);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

// ---- HTTP ----------------------------------------------------------------------------------------------------------

/// The same handler under axum alone.
async fn bare_http() -> Result<(SocketAddr, Server)> {
    async fn answer(Json(ask): Json<Ask>) -> Json<u64> {
        Json(Oracle.answer(&ask).await.unwrap_or_default())
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving = async move {
        let app = Router::new().route("/ask", post(answer));
        // As the gateway does.
        let served = axum::serve(
            axum::serve::ListenerExt::tap_io(listener, |stream: &mut TcpStream| {
                let _ = stream.set_nodelay(true);
            }),
            app,
        );
        let _ = served.await;
    };
    Ok((address, Server(tokio::spawn(serving).abort_handle())))
}

/// Speaks HTTP.
struct Http {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Asks for Http {
    async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let body = serde_json::to_vec(&Ask::new(7))?;
        let head = format!(
            "POST /ask HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        Ok(Self { stream, request: [head.as_bytes(), &body].concat(), answer: Vec::with_capacity(4096) })
    }

    async fn ask(&mut self) {
        self.stream.write_all(&self.request).await.expect("the server runs");
        self.answer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.answer).await.expect("the server runs");
            assert!(read > 0, "the server has closed the connection");
            // 7 + 7, behind an empty line.
            if self.answer.ends_with(b"\r\n\r\n14") {
                assert!(self.answer.starts_with(b"HTTP/1.1 200"), "the answer is no success");
                return;
            }
        }
    }
}

async fn http64(plan: Plan) -> Result<Figures> {
    let (bare, _server) = bare_http().await?;
    compare_servers::<Http>(plan, "axum", bare).await
}

async fn http_half(plan: Plan) -> Result<Figures> {
    let (bare, _server) = bare_http().await?;
    half_load::<Http>(plan, "axum", bare).await
}

/// Why there is no wrk.
fn wrk_missing() -> Option<String> {
    let output = Command::new("wrk").arg("--version").stdin(Stdio::null()).output();
    output.err().map(|error| format!("`wrk` cannot be started: {error}"))
}

/// Both sides as wrk sees them.
async fn http_wrk(plan: Plan) -> Result<Figures> {
    let (bare, _server) = bare_http().await?;
    let node = gate().await?;
    let script = std::env::temp_dir().join(format!("edri-bench-{}.lua", std::process::id()));
    let body = serde_json::to_string(&Ask::new(7))?;
    let text =
        format!("wrk.method = \"POST\"\nwrk.body = '{body}'\nwrk.headers[\"Content-Type\"] = \"application/json\"\n");
    std::fs::write(&script, text)?;
    let (ours, reference) = (wrk_side("edri", address(&node)?, &script), wrk_side("axum", bare, &script));
    let figures = compare(&plan, ours, vec![reference]).await;
    std::fs::remove_file(&script)?;
    stop(node).await?;
    Ok(figures)
}

/// A side that wrk drives: whatever number of rounds is wanted, it runs for a second and says how long they would have taken.
fn wrk_side(name: &'static str, address: SocketAddr, script: &Path) -> Side {
    let script = script.to_owned();
    Side::new(name, move |rounds| {
        let mut command = Command::new("wrk");
        command.args(["-t1", "-c64", "-d1s", "-s"]).arg(&script).arg(format!("http://{address}/ask"));
        async move {
            let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
            let said = String::from_utf8_lossy(&output.expect("it was there").stdout).into_owned();
            let rate =
                said.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:")?.trim().parse::<f64>().ok());
            assert!(!said.contains("Non-2xx"), "an answer is no success: {said}");
            Duration::from_secs_f64(rounds as f64 / rate.unwrap_or_else(|| panic!("wrk says no rate: {said}")))
        }
    })
}

// ---- WebSocket -----------------------------------------------------------------------------------------------------

/// A server that sends back what it is sent.
async fn echo() -> Result<(SocketAddr, Server)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving = async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let _ = stream.set_nodelay(true);
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    };
    Ok((address, Server(tokio::spawn(serving).abort_handle())))
}

/// Speaks the protocol in JSON.
struct Socket {
    socket: WebSocketStream<TcpStream>,
    payload: String,
    /// The number of the next call.
    next: u64,
}

impl Asks for Socket {
    async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{address}/ws"), stream).await?;
        // The other side sends it back, or a welcome.
        socket.send(Message::text(r#"{"hello":{"version":1,"role":"client"}}"#)).await?;
        socket.next().await.ok_or("the server has closed the connection")??;
        Ok(Self { socket, payload: serde_json::to_string(&Ask::new(7))?, next: 1 })
    }

    async fn ask(&mut self) {
        let Self { socket, payload, next } = self;
        let frame = format!(r#"{{"request":{{"id":{next},"event":"bench.ask","payload":{payload}}}}}"#);
        *next += 2;
        socket.send(Message::text(frame)).await.expect("the server runs");
        let answer = socket.next().await.expect("the server runs").expect("an answer");
        std::hint::black_box(answer);
    }
}

async fn websocket64(plan: Plan) -> Result<Figures> {
    let (bare, _server) = echo().await?;
    compare_servers::<Socket>(plan, "tungstenite echo", bare).await
}

async fn websocket_half(plan: Plan) -> Result<Figures> {
    let (bare, _server) = echo().await?;
    half_load::<Socket>(plan, "tungstenite echo", bare).await
}

// ---- both ----------------------------------------------------------------------------------------------------------

/// A connection that asks one thing after another.
pub(crate) trait Asks: Sized + Send + 'static {
    fn open(address: SocketAddr) -> impl Future<Output = Result<Self>> + Send;
    fn ask(&mut self) -> impl Future<Output = ()> + Send;
}

async fn connect<C: Asks>(address: SocketAddr) -> Result<Arc<Vec<Mutex<C>>>> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Mutex::new(C::open(address).await?));
    }
    Ok(Arc::new(connections))
}

/// A side whose rounds are shared by its connections.
fn side<C: Asks>(name: &'static str, connections: &Arc<Vec<Mutex<C>>>) -> Side {
    let connections = Arc::clone(connections);
    Side::new(name, move |rounds| {
        let connections = Arc::clone(&connections);
        async move {
            let share = rounds.div_ceil(CONNECTIONS as u64);
            let began = Instant::now();
            let tasks = (0..CONNECTIONS).map(|number| {
                let connections = Arc::clone(&connections);
                tokio::spawn(async move {
                    let mut connection = connections[number].lock().await;
                    for _ in 0..share {
                        connection.ask().await;
                    }
                })
            });
            join_all(tasks).await.into_iter().for_each(|ended| ended.expect("no panic"));
            began.elapsed()
        }
    })
}

/// Compares two servers by connections of this kind.
async fn compare_servers<C: Asks>(plan: Plan, reference: &'static str, bare: SocketAddr) -> Result<Figures> {
    let node = gate().await?;
    let ours = side::<C>("edri", &connect(address(&node)?).await?);
    let reference = side::<C>(reference, &connect(bare).await?);
    let figures = compare(&plan, ours, vec![reference]).await;
    stop(node).await?;
    Ok(figures)
}

/// Compares how long answers take when as much is asked of both as is half of what the slower can do.
async fn half_load<C: Asks>(plan: Plan, reference: &'static str, bare: SocketAddr) -> Result<Figures> {
    let node = gate().await?;
    let (ours, theirs) = (connect::<C>(address(&node)?).await?, connect::<C>(bare).await?);
    let quick = Plan::new(plan.pairs, true);
    let full = compare(&quick, side("edri", &ours), vec![side(reference, &theirs)]).await;
    let rate = full.ours.min(full.reference_value) / 2.0;
    let runs = if plan.quick { 1 } else { 3 };
    let mut measured = (Vec::new(), Vec::new());
    for _ in 0..runs {
        measured.0.push(paced(&ours, rate).await);
        measured.1.push(paced(&theirs, rate).await);
    }
    stop(node).await?;
    let of = |runs: &[Latency], what: fn(&Latency) -> f64| median(runs.iter().map(what));
    let shown = |runs: &[Latency]| {
        let [p50, p99, p999] =
            [|l: &Latency| l.p50, |l: &Latency| l.p99, |l: &Latency| l.p999].map(|what| of(runs, what));
        format!("{p50:.0}/{p99:.0}/{p999:.0}")
    };
    let (value, reference_value) = (of(&measured.0, |l| l.p99), of(&measured.1, |l| l.p99));
    Ok(Figures {
        ours: value,
        reference: reference.to_owned(),
        reference_value,
        ratio: reference_value / value,
        note: format!("{rate:.0}/s; p50/p99/p99.9: {} us, reference {} us", shown(&measured.0), shown(&measured.1)),
    })
}
