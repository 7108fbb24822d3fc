//! A node of a cluster as a program of its own. It publishes numbered events and asks for answers at a steady rate, and
//! writes down what it sent and what it handled, so that somebody else can count after it was killed.
//!
//! The journal has a line for each of these, in the order they happened:
//!
//! ```text
//! published NUMBER DELIVERIES              refused NUMBER CODE
//! told ORIGIN LIFE NUMBER REDELIVERED      answered ORIGIN LIFE NUMBER
//! asked NUMBER NODE                        ended NUMBER OUTCOME
//! ```

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use edri::prelude::*;
use edri::{Connector, Limits, NodeName};
use tokio::sync::{Semaphore, mpsc};

/// How many requests of a node are open at once; what would be more is not asked.
const OPEN_MAX: usize = 256;
/// The places of the inboxes of both managers: as much can be lost with a killed node.
pub const INBOX: usize = 64;

/// A numbered notification.
#[event(notification, name = "cluster.told")]
pub struct Told {
    /// The node that tells.
    pub origin: String,
    /// Which life of it, counted by whoever starts it.
    pub life: u64,
    /// From 0 in each life, without a gap.
    pub number: u64,
}

/// A numbered request; the answer is the number and one.
#[event(request, name = "cluster.asked", response = u64, timeout = "5s")]
pub struct Asked {
    /// The node that asks.
    pub origin: String,
    /// Which life of it.
    pub life: u64,
    /// From 0 in each life.
    pub number: u64,
}

/// For the node itself; nobody else hears of it.
#[event(notification, name = "cluster.mine")]
pub struct Mine {
    /// From 0.
    pub number: u64,
}

/// Lines that are in the file as soon as they were written: nothing of them dies with the process.
#[derive(Clone)]
struct Journal(Arc<File>);

impl Journal {
    fn write(&self, line: String) {
        // One call a line: others write between lines, not within one.
        (&*self.0).write_all((line + "\n").as_bytes()).expect("the journal can be written to");
    }
}

/// Writes down what it is told, and answers.
#[derive(Clone)]
struct Clerk(Journal);

impl Worker for Clerk {}

impl Handle<Told> for Clerk {
    async fn handle(&mut self, told: &Told, cx: &mut Context) -> Result<(), Failure> {
        let redelivered = u8::from(cx.is_redelivered());
        self.0.write(format!("told {} {} {} {redelivered}", told.origin, told.life, told.number));
        Ok(())
    }
}

impl Handle<Asked> for Clerk {
    async fn handle(&mut self, asked: &Asked, _: &mut Context) -> Result<u64, Failure> {
        self.0.write(format!("answered {} {} {}", asked.origin, asked.life, asked.number));
        Ok(asked.number + 1)
    }
}

/// Counts what comes from its own node.
#[derive(Clone, Default)]
struct Local(Arc<AtomicU64>);

impl Worker for Local {}

impl Handle<Mine> for Local {
    async fn handle(&mut self, _: &Mine, _: &mut Context) -> Result<(), Failure> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// What the program was told to be: `key=value` in any order, keys that are lists once for each entry.
struct Role {
    arguments: Vec<(String, String)>,
}

impl Role {
    fn all(&self, key: &'static str) -> impl Iterator<Item = &str> {
        self.arguments.iter().filter(move |(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    fn get(&self, key: &'static str) -> Option<&str> {
        self.all(key).next()
    }

    fn text(&self, key: &'static str) -> String {
        self.get(key).unwrap_or_else(|| panic!("`{key}=` is needed")).to_owned()
    }

    fn number(&self, key: &'static str) -> Option<u64> {
        self.get(key).map(|value| value.parse().unwrap_or_else(|_| panic!("`{key}={value}` is no number")))
    }

    fn connector(&self) -> Connector {
        let connector = self.get("listen").map_or_else(Connector::dial, Connector::listen);
        let connector = self.all("connect").fold(connector, |connector, address| connector.connect(address));
        let connector = connector.identity(self.text("keys"));
        let connector = self.number("outbox").into_iter().fold(connector, |to, events| to.outbox(events as usize));
        if self.get("switch").is_some() { connector.switch() } else { connector }
    }
}

/// Issues the keys of each of these nodes into a folder of its name below `folder`.
///
/// # Errors
///
/// When they cannot be made or written.
pub fn issue_keys(folder: &Path, nodes: &[&str]) -> edri::Result<()> {
    let authority = edri::keys::Authority::generate().map_err(std::io::Error::other)?;
    for node in nodes {
        let name = NodeName::new(node).map_err(std::io::Error::other)?;
        let identity = authority.issue(&name, Duration::from_secs(24 * 3600)).map_err(std::io::Error::other)?;
        identity.save(folder.join(node)).map_err(std::io::Error::other)?;
    }
    Ok(())
}

/// Runs a node. Arguments: `name`, `life`, `keys`, `journal`; `listen`, `connect`…, `switch=yes`, `outbox`, `letters`
/// (how many dead letters are kept); `peer`… are the
/// nodes that it waits for before it begins, and asks; `every_ms` and `ask_every_ms` are the pauses between events.
///
/// Commands come on its standard input, a line each, and are answered with a line of JSON: `look`, `rest` (send nothing more,
/// wait for all answers), `local N` (publish so many to itself), `stop`. When the input ends, so does the process.
///
/// # Errors
///
/// When the node does not start.
pub fn run(arguments: &[&str]) -> edri::Result<()> {
    let split = |argument: &&str| {
        let (key, value) = argument.split_once('=').unwrap_or_else(|| panic!("`{argument}` is no `key=value`"));
        (key.to_owned(), value.to_owned())
    };
    let role = Role { arguments: arguments.iter().map(split).collect() };
    let journal = File::options().create(true).append(true).open(role.text("journal"))?;
    let clerk = Clerk(Journal(Arc::new(journal)));
    let local = Local::default();
    let (counted, writer) = (Arc::clone(&local.0), clerk.0.clone());
    let mut limits = Limits::default();
    limits.dead_letters_max = role.number("letters").unwrap_or(100_000) as usize;
    let mut app = App::new(&role.text("name")).limits(limits).connector(role.connector());
    if role.get("switch").is_none() {
        let oracle = clerk.clone();
        app = app
            .manager(Manager::new("clerk").worker(move || clerk.clone()).inbox(INBOX).handles::<Told>())
            .manager(Manager::new("oracle").worker(move || oracle.clone()).inbox(INBOX).handles::<Asked>())
            .manager(Manager::new("local").worker(move || local.clone()).handles::<Mine>());
    }
    app.run_with(|node| serve(node, role, writer, counted))?;
    Ok(())
}

async fn serve(node: Node, role: Role, journal: Journal, counted: Arc<AtomicU64>) -> edri::Result<()> {
    let mut commands = commands();
    say(&serde_json::json!({ "running": role.text("name") }))?;
    let role = Arc::new(role);
    let resting = Arc::new(AtomicBool::new(false));
    let sender = Sender { node: node.clone(), role, journal, resting: Arc::clone(&resting) };
    let mut sending = Some(tokio::spawn(sender.run()));
    while let Some(command) = commands.recv().await {
        match command.split_once(' ').unwrap_or((&command, "")) {
            ("look", _) => say(&look(&node))?,
            ("rest", _) => {
                resting.store(true, Ordering::Relaxed);
                let sent = match sending.take() {
                    Some(sending) => sending.await.map_err(std::io::Error::other)?,
                    None => Sent::default(),
                };
                say(&serde_json::json!({ "published": sent.published, "asked": sent.asked }))?;
            }
            ("local", count) => {
                let count: u64 = count.parse().map_err(std::io::Error::other)?;
                let (began, before) = (std::time::Instant::now(), counted.load(Ordering::Relaxed));
                for number in 0..count {
                    node.bus().publish(Mine { number }).await?;
                }
                node.at_rest().await;
                let handled = counted.load(Ordering::Relaxed) - before;
                say(&serde_json::json!({ "handled": handled, "took_ms": began.elapsed().as_millis() as u64 }))?;
            }
            ("stop", _) => {
                let dead = dead_letters(&node);
                let report = node.shutdown().await;
                let unfinished = report.unfinished.len();
                let balanced = report.account.is_balanced();
                return Ok(say(&serde_json::json!({
                    "account": report.account, "balanced": balanced, "unfinished": unfinished, "dead": dead,
                    "took_ms": report.took.as_millis() as u64,
                }))?);
            }
            (other, _) => panic!("`{other}` is no command"),
        }
    }
    Ok(())
}

fn look(node: &Node) -> serde_json::Value {
    serde_json::json!({ "topology": node.topology(), "dead": dead_letters(node) })
}

/// How many dead letters there are for each group and reason.
fn dead_letters(node: &Node) -> serde_json::Value {
    let mut counts = serde_json::Map::new();
    for letter in node.bus().dead_letters() {
        let name = format!("{} for {}: {:?}, {}", letter.envelope.name(), letter.group, letter.reason, letter.detail);
        let count = counts.get(&name).and_then(serde_json::Value::as_u64).unwrap_or(0);
        counts.insert(name, (count + 1).into());
    }
    counts.into()
}

fn say(what: &serde_json::Value) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{what}")
}

/// The lines of the standard input. When it ends the process does: whoever started it is gone.
fn commands() -> mpsc::Receiver<String> {
    let (line, lines) = mpsc::channel(16);
    std::thread::spawn(move || {
        for read in std::io::stdin().lock().lines() {
            let Ok(read) = read else { break };
            if line.blocking_send(read).is_err() {
                return;
            }
        }
        std::process::exit(3);
    });
    lines
}

/// What was sent in all.
#[derive(Default)]
struct Sent {
    published: u64,
    asked: u64,
}

#[derive(Clone)]
struct Sender {
    node: Node,
    role: Arc<Role>,
    journal: Journal,
    resting: Arc<AtomicBool>,
}

impl Sender {
    async fn run(self) -> Sent {
        if self.role.get("switch").is_some() {
            return Sent::default();
        }
        self.met().await;
        let asking = tokio::spawn(self.clone().ask());
        let published = self.publish().await;
        Sent { published, asked: asking.await.expect("asking does not panic") }
    }

    fn rests(&self) -> bool {
        self.resting.load(Ordering::Relaxed)
    }

    /// Waits until the managers of all others are known: from then on nothing misses them.
    async fn met(&self) {
        let peers: Vec<_> = self.role.all("peer").collect();
        while !self.rests() {
            let remote = self.node.topology().remote;
            let known: HashSet<_> = remote.iter().map(|group| group.name.to_text()).collect();
            let has = |peer: &str| ["clerk", "oracle"].iter().all(|name| known.contains(&format!("{peer}/{name}")));
            if peers.iter().all(|peer| has(peer)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn pace(&self, key: &'static str) -> Option<tokio::time::Interval> {
        let mut pace = tokio::time::interval(Duration::from_millis(self.role.number(key)?));
        // Whoever was stopped does not make up for it.
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Some(pace)
    }

    async fn publish(&self) -> u64 {
        let (origin, life) = (self.role.text("name"), self.role.number("life").expect("`life=` is needed"));
        let mut number = 0;
        let Some(mut pace) = self.pace("every_ms") else { return 0 };
        while !self.rests() {
            pace.tick().await;
            match self.node.bus().publish(Told { origin: origin.clone(), life, number }).await {
                Ok(receipt) => self.journal.write(format!("published {number} {}", receipt.deliveries)),
                Err(error) => self.journal.write(format!("refused {number} {}", error.code())),
            }
            number += 1;
        }
        number
    }

    async fn ask(self) -> u64 {
        let (origin, life) = (self.role.text("name"), self.role.number("life").expect("`life=` is needed"));
        let peers: Vec<String> = self.role.all("peer").map(str::to_owned).collect();
        let open = Arc::new(Semaphore::new(OPEN_MAX));
        let mut number = 0;
        let Some(mut pace) = self.pace("ask_every_ms") else { return 0 };
        while !self.rests() {
            pace.tick().await;
            let Ok(permit) = Arc::clone(&open).try_acquire_owned() else { continue };
            let peer = peers[number as usize % peers.len()].clone();
            let (sender, asked) = (self.clone(), Asked { origin: origin.clone(), life, number });
            sender.journal.write(format!("asked {number} {peer}"));
            tokio::spawn(async move {
                let outcome = match sender.node.bus().request_at(&peer, asked).await {
                    Ok(answer) if answer == number + 1 => "ok".to_owned(),
                    Ok(_) => "wrong".to_owned(),
                    Err(error) => error.code().to_string(),
                };
                sender.journal.write(format!("ended {number} {outcome}"));
                drop(permit);
            });
            number += 1;
        }
        // All have ended.
        let _ = open.acquire_many(OPEN_MAX as u32).await;
        number
    }
}
