//! Three nodes that are replaced one by one, while others publish and ask.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Folder, LIMIT, Running, edri, http, python, run, said, text, until};

const NODES: [&str; 3] = ["north", "east", "south"];

/// Notes each tick in the node's file, and doubles numbers.
const WORKER: &str = r#"
import os
from edri_sdk import Worker

worker = Worker()
notes = open(os.environ["NOTES"], "a", buffering=1)

@worker.notification("load.tick")
async def tick(event: dict, cx) -> None:
    notes.write(f"{event['number']} {int(cx.redelivered)}\n")

@worker.request("load.double", idempotent=True, timeout=20)
async def double(ask: dict, cx) -> int:
    return 2 * ask["number"]

worker.run()
"#;

struct Cluster {
    folder: Folder,
    gateways: Vec<SocketAddr>,
}

impl Cluster {
    fn new() -> Self {
        let folder = Folder::new();
        folder.write("worker.py", WORKER);
        let authority = folder.0.join("authority");
        assert!(run(&mut edri(&["keys", "init", text(&authority)])).status.success());
        for name in NODES {
            assert!(run(&mut edri(&["keys", "node", text(&authority), name])).status.success());
        }
        // All are held until the last is known, so that they differ.
        let links = NODES.map(|_| UdpSocket::bind("127.0.0.1:0").expect("is bound"));
        let links = links.each_ref().map(|socket| socket.local_addr().expect("has an address"));
        let gateways = NODES.map(|_| TcpListener::bind("127.0.0.1:0").expect("is bound"));
        let gateways = gateways.each_ref().map(|socket| socket.local_addr().expect("has an address"));
        let cluster = Self { folder, gateways: gateways.to_vec() };
        for (index, name) in NODES.iter().enumerate() {
            let others = links.iter().filter(|link| **link != links[index]).map(|link| format!("\"{link}\""));
            let others = others.collect::<Vec<_>>().join(", ");
            let notes = cluster.notes(name);
            let file = format!(
                "name = \"{name}\"\n[links]\nidentity = \"{name}\"\nlisten = \"{}\"\nconnect = [{others}]\n\
                 [api]\nbind = \"{}\"\nopen = true\nexpose = [\"load.>\"]\n\
                 [managers.counter]\ncommand = \"worker.py\"\ninterpreter = \"{}\"\nshared = true\n\
                 environment = {{ NOTES = \"{}\" }}\n",
                links[index],
                gateways[index],
                text(&python()),
                text(Path::new(&notes)),
            );
            cluster.folder.write(&format!("{name}.toml"), &file);
        }
        cluster
    }

    fn notes(&self, name: &str) -> String {
        text(&self.folder.0.join(format!("{name}.txt"))).to_owned()
    }

    fn start(&self, index: usize) -> Running {
        let file = self.folder.0.join(format!("{}.toml", NODES[index]));
        let node = Running::start(&mut edri(&["run", text(&file)]));
        let gateway = self.gateways[index];
        until("the node is ready", || http(gateway, "GET", "/readyz", None, "").0 == 200);
        node
    }

    /// How often each number was noted, and whether it was marked as redelivered.
    fn noted(&self) -> BTreeMap<u64, (u32, bool)> {
        let mut noted: BTreeMap<u64, (u32, bool)> = BTreeMap::new();
        for name in NODES {
            for line in fs::read_to_string(self.notes(name)).unwrap_or_default().lines() {
                let (number, redelivered) = line.split_once(' ').expect("a number and a mark");
                let times = noted.entry(number.parse().expect("a number")).or_default();
                *times = (times.0 + 1, times.1 || redelivered == "1");
            }
        }
        noted
    }
}

/// Asks a gateway. `None` when it was not there; an answer that broke off is an error.
fn ask(to: SocketAddr, event: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(to).ok()?;
    stream.set_read_timeout(Some(LIMIT)).expect("is set");
    let request = format!(
        "POST /events/{event} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut answer = String::new();
    // A node that ends does not take connections that nobody has accepted yet.
    if stream.write_all(request.as_bytes()).is_err() || stream.read_to_string(&mut answer).is_err() || answer.is_empty()
    {
        return None;
    }
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Some((status, said(answer.split_once("\r\n\r\n").expect("a body").1.as_bytes())))
}

/// The same of one node after another, until one does it.
fn ask_any(cluster: &Cluster, first: u64, event: &str, body: &str, wanted: u16) -> String {
    let began = Instant::now();
    let mut turn = usize::try_from(first).expect("is small");
    loop {
        match ask(cluster.gateways[turn % NODES.len()], event, body) {
            Some((status, body)) if status == wanted => return body,
            // It stops, or has not begun.
            None | Some((503, _)) => {}
            Some(other) => panic!("{event}: {other:?}"),
        }
        assert!(began.elapsed() < LIMIT, "{event}: no node takes it");
        turn += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn three_nodes_are_replaced_one_by_one_under_load_and_no_event_is_lost_or_handled_twice() {
    let cluster = Cluster::new();
    let mut nodes: Vec<_> = (0..NODES.len()).map(|index| Some(cluster.start(index))).collect();
    let (is_over, published, answered) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let number = published.fetch_add(1, Ordering::Relaxed);
                    ask_any(&cluster, number, "load.tick", &format!("{{\"number\": {number}}}"), 202);
                }
            });
        }
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let number = answered.fetch_add(1, Ordering::Relaxed);
                let double = ask_any(&cluster, number, "load.double", &format!("{{\"number\": {number}}}"), 200);
                assert_eq!(double, (2 * number).to_string());
            }
        });
        // Whatever goes wrong here must end the load too.
        let rolled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for index in 0..NODES.len() {
                let before = published.load(Ordering::Relaxed);
                let node = nodes[index].take().expect("it runs");
                let (code, log) = node.end();
                assert_eq!(code, Some(0), "{}: {log}", NODES[index]);
                until("the others go on", || published.load(Ordering::Relaxed) > before + 50);
                nodes[index] = Some(cluster.start(index));
                let before = published.load(Ordering::Relaxed);
                until("all go on", || published.load(Ordering::Relaxed) > before + 50);
            }
        }));
        is_over.store(true, Ordering::Relaxed);
        if let Err(panic) = rolled {
            std::panic::resume_unwind(panic);
        }
    });
    let published = published.into_inner();
    until("all are noted", || cluster.noted().len() as u64 >= published);
    let noted = cluster.noted();
    let twice: Vec<_> = noted.iter().filter(|(_, (times, _))| *times != 1).collect();
    assert!(twice.is_empty(), "not noted once: {twice:?}");
    assert!(answered.into_inner() > 20, "requests were answered all the while");
    for node in nodes.into_iter().flatten() {
        assert_eq!(node.end().0, Some(0));
    }
}
