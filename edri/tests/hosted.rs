//! A process that a node has marked hosts its worker: this program starts itself again, as a node would.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::BytesMut;
use edri::prelude::*;
use edri_events::Encoding;
use edri_protocol::limits::FRAME_BYTES_MAX;
use edri_protocol::{Bye, Call, Frame, Payload, VERSION, Welcome, Window};

#[event(request, name = "hosted.ask", response = String)]
struct Ask {
    what: String,
}

struct Teller {
    word: String,
}

impl Worker for Teller {}

impl Handle<Ask> for Teller {
    async fn handle(&mut self, ask: &Ask, cx: &mut Context) -> Result<String, Failure> {
        match ask.what.as_str() {
            "stdin" => {
                let mut read = [0];
                let count = std::io::stdin().read(&mut read)?;
                Ok(count.to_string())
            }
            "marked below" => {
                // What a worker starts inherits its environment, and is no worker.
                let program = std::env::current_exe()?;
                let output = Command::new(program)
                    .args(["--exact", "the_worker_s_process", "--nocapture"])
                    .env_remove("EDRI_TEST_WITHOUT_MAIN")
                    .output()?;
                Ok(String::from_utf8_lossy(&output.stdout).contains("not marked").to_string())
            }
            _ => Ok(format!("{} {}", self.word, cx.address().node)),
        }
    }
}

fn app() -> App {
    let word = "of its own".to_owned();
    App::new("hosted").manager(
        Manager::new("teller")
            .workers_with(1, &word, |word| Teller { word })
            .placement(Placement::Process)
            .handles::<Ask>(),
    )
}

/// In an ordinary run of the tests nobody has marked the process.
#[test]
#[allow(clippy::print_stdout)]
fn the_worker_s_process() {
    if std::env::var_os("EDRI_TEST_WITHOUT_MAIN").is_some() {
        // As a program does that only runs its app; it must not become a node.
        let ended = app().run();
        panic!("a marked process went on: {ended:?}");
    }
    edri::hosted(app);
    println!("not marked");
}

struct Node {
    stream: UnixStream,
    child: Child,
    read: BytesMut,
    next: u64,
}

impl Node {
    fn start(manager: &str, more: &[(&str, &str)]) -> Self {
        let (stream, its) = UnixStream::pair().expect("a pair");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        let child = Command::new(std::env::current_exe().expect("a program"))
            .args(["--exact", "the_worker_s_process"])
            .env("EDRI_WORKER", manager)
            .env("EDRI_NODE_PID", std::process::id().to_string())
            .envs(more.iter().copied())
            .stdin(Stdio::from(OwnedFd::from(its)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        Self { stream, child, read: BytesMut::new(), next: 2 }
    }

    fn send(&mut self, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        frame.encode_to_stream(Encoding::MessagePack, FRAME_BYTES_MAX, &mut bytes).expect("encodes");
        self.stream.write_all(&bytes).expect("the worker reads");
    }

    /// The next frame that is no ack and no log; `None` at the end.
    fn next<R>(&mut self, take: impl FnOnce(Frame<'_>) -> R) -> Option<R> {
        loop {
            while let Some(frame) = edri_protocol::split(&mut self.read, FRAME_BYTES_MAX).expect("frames") {
                match Frame::decode(&frame).expect("a frame") {
                    Frame::Ack(_) | Frame::Log(_) | Frame::Ping(_) => {}
                    frame => return Some(take(frame)),
                }
            }
            let mut more = [0; 4096];
            match self.stream.read(&mut more).expect("in time") {
                0 => return None,
                count => self.read.extend_from_slice(&more[..count]),
            }
        }
    }

    fn name(&mut self) -> String {
        self.next(|frame| frame.name().to_owned()).unwrap_or_default()
    }

    fn welcome(&mut self) {
        assert_eq!(self.name(), "hello");
        let word = Encoding::MessagePack.encode("given").expect("encodes");
        self.send(&Frame::Welcome(Welcome {
            version: VERSION,
            node: "north".into(),
            incarnation: "00000000000000ab".into(),
            manager: Some("teller".into()),
            instance: 0,
            silence_ms: 60_000,
            frame_bytes_max: FRAME_BYTES_MAX as u64,
            window: Window::default(),
            arguments: Some(Payload::new(Encoding::MessagePack, &word)),
            session: None,
        }));
        assert_eq!(self.name(), "ready");
    }

    fn ask(&mut self, what: &str) -> String {
        let payload = Encoding::MessagePack.encode(&Ask { what: what.to_owned() }).expect("encodes");
        let payload = Some(Payload::new(Encoding::MessagePack, &payload));
        self.send(&Frame::Request(Call { id: self.next, event: "hosted.ask".into(), payload, ..Call::default() }));
        self.next += 2;
        let text = self.next(|frame| match frame {
            Frame::Response(response) => {
                Encoding::MessagePack.decode::<String>(response.value.expect("a value").bytes()).expect("a text")
            }
            other => panic!("{other:?}"),
        });
        text.expect("an answer")
    }
}

#[test]
fn a_marked_process_hosts_the_worker_with_the_arguments_of_its_node() {
    for more in [&[][..], &[("EDRI_TEST_WITHOUT_MAIN", "1")][..]] {
        let mut node = Node::start("teller", more);
        node.welcome();
        assert_eq!(node.ask("x"), "given north");
        assert_eq!(node.ask("stdin"), "0", "the connection is not what the worker reads as its input");
        assert_eq!(node.ask("marked below"), "true");
        node.send(&Frame::Bye(Bye::default()));
        assert_eq!(node.name(), "bye");
        assert_eq!(node.child.wait().expect("ends").code(), Some(0));
    }
}

#[test]
fn a_process_that_has_no_such_manager_says_so_and_ends() {
    let mut node = Node::start("nobody", &[]);
    assert_eq!(node.child.wait().expect("ends").code(), Some(2));
    let mut said = String::new();
    node.child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    assert!(said.contains("manager `nobody`") && said.contains("edri::hosted"), "{said}");
}

#[test]
fn a_worker_ends_with_its_node_s_connection() {
    let mut node = Node::start("teller", &[]);
    node.welcome();
    node.stream.shutdown(std::net::Shutdown::Both).expect("open");
    assert_eq!(node.child.wait().expect("ends").code(), Some(0));
}

#[test]
fn a_terminal_s_interrupt_leaves_the_worker_and_a_terminate_ends_it_in_order() {
    let mut node = Node::start("teller", &[]);
    node.welcome();
    let signal = |name: &str, id: u32| {
        let sent = Command::new("kill").args(["-s", name, &id.to_string()]).status().expect("kill runs");
        assert!(sent.success());
    };
    signal("INT", node.child.id());
    assert_eq!(node.ask("x"), "given north");
    signal("TERM", node.child.id());
    assert_eq!(node.name(), "bye");
    assert_eq!(node.child.wait().expect("ends").code(), Some(0));
}
