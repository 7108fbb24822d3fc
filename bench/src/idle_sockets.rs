//! Ten thousand clients over WebSocket that say nothing: what their node occupies. The node is a process of its own, so that the clients'
//! memory is not counted.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use edri::{Api, App};
use futures_util::{SinkExt, StreamExt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::Result;
use crate::case::Figures;
use crate::harness::Plan;
use crate::idle::resident_bytes;

const SOCKETS: usize = 10_000;
const MEMORY_MB_MAX: f64 = 200.0;
/// A gateway takes 1,024 connections of one address: the clients are at several.
const SOCKETS_PER_ADDRESS: usize = 1_000;
/// Beside the sockets.
const OTHER_FILES: u64 = 200;
/// How long all are left alone before the node's memory is looked at.
const SETTLES: Duration = Duration::from_secs(2);

type Socket = WebSocketStream<TcpStream>;

/// Why it cannot be measured here.
pub(crate) fn missing() -> Option<String> {
    let wanted = SOCKETS as u64 + OTHER_FILES;
    let most = getrlimit(Resource::Nofile).maximum;
    most.is_some_and(|most| most < wanted).then(|| format!("{wanted} open files are wanted, and {most:?} may be"))
}

/// Lets this process open as many files as it may.
fn raise_files() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// Ended when it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) async fn measure(_: Plan) -> Result<Figures> {
    raise_files()?;
    let mut command = Command::new(std::env::current_exe()?);
    let command = command.args(["probe", "sockets"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = Server(command.spawn()?);
    let mut said = BufReader::new(server.0.stdout.take().ok_or("there is a pipe")?).lines();
    let mut next = move || -> Result<String> { Ok(said.next().ok_or("the node has ended")??) };
    let address: SocketAddr = next()?.parse()?;
    let before: f64 = next()?.parse()?;
    let mut sockets = Vec::with_capacity(SOCKETS);
    for number in 0..SOCKETS {
        sockets.push(open(address, number).await?);
    }
    tokio::time::sleep(SETTLES).await;
    server.0.stdin.as_mut().ok_or("there is a pipe")?.write_all(b"\n")?;
    let ours: f64 = next()?.parse()?;
    let kilobytes = (ours - before) * 1e3 / SOCKETS as f64;
    drop(sockets);
    Ok(Figures {
        ours,
        reference: "absolute limit".to_owned(),
        reference_value: MEMORY_MB_MAX,
        ratio: MEMORY_MB_MAX / ours,
        note: format!("{SOCKETS} sockets, {kilobytes:.1} kB each; {before:.1} MB without"),
    })
}

/// A client that has said hello, at one of several addresses of this machine.
async fn open(address: SocketAddr, number: usize) -> Result<Socket> {
    let last = u8::try_from(number / SOCKETS_PER_ADDRESS)? + 2;
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into())?;
    let stream = socket.connect(address).await?;
    let config = WebSocketConfig::default().read_buffer_size(4 << 10).write_buffer_size(0);
    let url = format!("ws://{address}/ws");
    let (mut socket, _) = tokio_tungstenite::client_async_with_config(url, stream, Some(config)).await?;
    socket.send(Message::text(r#"{"hello":{"version":1,"role":"client"}}"#)).await?;
    socket.next().await.ok_or("the node has closed the connection")??;
    Ok(socket)
}

/// The node: says where it is and what it occupies, and again what it occupies when it is asked.
#[expect(clippy::print_stdout, reason = "the parent reads it")]
pub(crate) async fn serve() -> Result<()> {
    raise_files()?;
    let node = App::new("bench").api(Api::bind("127.0.0.1:0")).start().await?;
    println!("{}", node.api_address().ok_or("the node has no gateway")?);
    println!("{}", resident_bytes()? / 1e6);
    // Until it is asked, or the parent is gone.
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    println!("{}", resident_bytes()? / 1e6);
    node.shutdown().await;
    Ok(())
}
