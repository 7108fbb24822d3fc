//! The store beside a bare request, and beside its engine alone.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use edri::{Bus, Definition, Encoding, IntoDefinition, Manager, Namespace, Store};
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::{Mutex, oneshot};

use crate::Result;
use crate::case::{Case, Figures};
use crate::event::{Ask, Oracle, node, stop};
use crate::harness::{Plan, Side, compare};
use crate::redis::{self, Redis};

/// In the order they are run. The budgets are those of the project's plan.
pub(crate) const CASES: &[Case] = &[
    Case::new("store.get", "requests/s", 0.8, |plan| Box::pin(get(plan))).one_in_flight(),
    Case::new("store.get64", "requests/s", 0.8, |plan| Box::pin(get64(plan))),
    Case::informing("store.set64", "requests/s", |plan| Box::pin(set64(plan))),
    Case::new("store.set_durable", "requests/s", 0.8, |plan| Box::pin(set_durable(plan))),
    Case::informing("store.redis.get64", "requests/s", |plan| Box::pin(get_redis(plan))).needs(redis::missing),
    Case::informing("store.redis.set_durable", "requests/s", |plan| Box::pin(set_redis(plan))).needs(redis::missing),
];

/// How many ask at once.
const REQUESTERS: u64 = 64;
/// How many keys there are.
const KEYS: u64 = 1000;
/// How many writes the engine alone takes into one transaction, as the store does.
const BATCH_MAX: usize = 4096;

/// One side of a case, for a profiler.
#[derive(Debug, clap::Args)]
pub(crate) struct Once {
    what: What,
    rounds: u64,
    /// How many ask at once.
    #[arg(long, default_value_t = 1)]
    requesters: u64,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum What {
    Get,
    Set,
    SetDurable,
    /// The bare request.
    Ask,
    /// The engine alone.
    Put,
}

/// Does so many rounds; how long they took.
pub(crate) async fn once(Once { what, rounds, requesters }: Once) -> Result<Duration> {
    let folder = Folder::new()?;
    let store = match what {
        What::SetDurable => Store::open(folder.0.join("store")),
        _ => Store::memory(),
    };
    let node = node([oracle(), store.namespace("bench").into_definition()]).await?;
    let (bus, namespace) = (node.bus().clone(), filled(node.bus()).await?);
    let engine = engine(folder.0.join("engine"))?;
    let work = by_many(requesters, rounds, move |worker, rounds| -> BoxFuture<'static, ()> {
        match what {
            What::Get => Box::pin(read(namespace.clone(), worker, rounds)),
            What::Set | What::SetDurable => Box::pin(write(namespace.clone(), worker, rounds)),
            What::Ask => Box::pin(ask(bus.clone(), rounds)),
            What::Put => Box::pin(put(engine.clone(), worker, rounds)),
        }
    });
    let took = timed(work).await;
    stop(node).await?;
    Ok(took)
}

fn oracle() -> Definition {
    Manager::new("oracle").worker(Oracle::default).handles::<Ask>().into()
}

/// So many keys, written once.
fn keys() -> Vec<String> {
    (0..KEYS).map(|number| format!("key/{number}")).collect()
}

async fn timed(work: impl Future<Output = ()>) -> Duration {
    let began = Instant::now();
    work.await;
    began.elapsed()
}

/// `rounds` shared by many at once.
async fn by_many<F>(requesters: u64, rounds: u64, each: impl Fn(u64, u64) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let workers = (0..requesters).map(|worker| tokio::spawn(each(worker, rounds.div_ceil(requesters))));
    join_all(workers).await.into_iter().for_each(|ended| ended.expect("no panic"));
}

async fn filled(bus: &Bus) -> Result<Namespace<[u64; 7]>> {
    let namespace = Namespace::new(bus, "bench");
    for key in keys() {
        namespace.set(&key, &[u64::MAX; 7]).await?;
    }
    Ok(namespace)
}

async fn read(namespace: Namespace<[u64; 7]>, worker: u64, rounds: u64) {
    let keys = keys();
    for round in 0..rounds {
        let key = &keys[((worker * 31 + round) % KEYS) as usize];
        std::hint::black_box(namespace.get(key).await.expect("the node runs"));
    }
}

async fn ask(bus: Bus, rounds: u64) {
    for number in 0..rounds {
        std::hint::black_box(bus.request(Ask::new(number)).await.expect("the node runs"));
    }
}

/// One reader, and one who asks a worker that knows the answer.
async fn get(plan: Plan) -> Result<Figures> {
    let node = node([oracle(), Store::memory().namespace("bench").into_definition()]).await?;
    let (bus, namespace) = (node.bus().clone(), filled(node.bus()).await?);
    let ours = Side::new("edri", move |rounds| timed(read(namespace.clone(), 0, rounds)));
    let reference = Side::new("bare request", move |rounds| timed(ask(bus.clone(), rounds)));
    let figures = compare(&plan, ours, vec![reference]).await;
    stop(node).await?;
    Ok(figures)
}

async fn get64(plan: Plan) -> Result<Figures> {
    let node = node([oracle(), Store::memory().namespace("bench").into_definition()]).await?;
    let (bus, namespace) = (node.bus().clone(), filled(node.bus()).await?);
    let ours = Side::new("edri", move |rounds| {
        let namespace = namespace.clone();
        timed(by_many(REQUESTERS, rounds, move |worker, rounds| read(namespace.clone(), worker, rounds)))
    });
    let reference = Side::new("bare request", move |rounds| {
        let bus = bus.clone();
        timed(by_many(REQUESTERS, rounds, move |_, rounds| ask(bus.clone(), rounds)))
    });
    let figures = compare(&plan, ours, vec![reference]).await;
    stop(node).await?;
    Ok(figures)
}

async fn write(namespace: Namespace<[u64; 7]>, worker: u64, rounds: u64) {
    let keys = keys();
    for round in 0..rounds {
        let key = &keys[((worker * 31 + round) % KEYS) as usize];
        namespace.set(key, &[u64::MAX; 7]).await.expect("the node runs");
    }
}

async fn set64(plan: Plan) -> Result<Figures> {
    let node = node([oracle(), Store::memory().namespace("bench").into_definition()]).await?;
    let (bus, namespace) = (node.bus().clone(), filled(node.bus()).await?);
    let ours = Side::new("edri", move |rounds| {
        let namespace = namespace.clone();
        timed(by_many(REQUESTERS, rounds, move |worker, rounds| write(namespace.clone(), worker, rounds)))
    });
    let reference = Side::new("bare request", move |rounds| {
        let bus = bus.clone();
        timed(by_many(REQUESTERS, rounds, move |_, rounds| ask(bus.clone(), rounds)))
    });
    let figures = compare(&plan, ours, vec![reference]).await;
    stop(node).await?;
    Ok(figures)
}

/// A folder beside the program, so on the disk that it was built on; gone in the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let program = std::env::current_exe()?;
        let folder = program.with_file_name(format!("bench-store-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// 64 writers of about 64 bytes each, every one of which waits until its own is on disk.
async fn set_durable(plan: Plan) -> Result<Figures> {
    let folder = Folder::new()?;
    let node = node([Store::open(folder.0.join("store")).namespace("bench").into_definition()]).await?;
    let namespace = Namespace::new(node.bus(), "bench");
    let ours = Side::new("edri", move |rounds| {
        let namespace = namespace.clone();
        timed(by_many(REQUESTERS, rounds, move |worker, rounds| write(namespace.clone(), worker, rounds)))
    });
    let engine = engine(folder.0.join("engine"))?;
    let reference = Side::new("redb, batched", move |rounds| {
        let engine = engine.clone();
        timed(by_many(REQUESTERS, rounds, move |worker, rounds| put(engine.clone(), worker, rounds)))
    });
    let figures = compare(&plan, ours, vec![reference]).await;
    stop(node).await?;
    Ok(figures)
}

/// So many connections to a server, one for each who asks.
type Clients = Arc<Vec<Mutex<redis::Client>>>;

async fn clients(server: &Redis) -> Result<Clients> {
    let mut clients = Vec::new();
    for _ in 0..REQUESTERS {
        clients.push(Mutex::new(server.connect().await?));
    }
    Ok(Arc::new(clients))
}

async fn redis_get(clients: Clients, worker: u64, rounds: u64) {
    let (keys, mut client) = (keys(), clients[worker as usize].lock().await);
    for round in 0..rounds {
        let key = &keys[((worker * 31 + round) % KEYS) as usize];
        let value = client.get(key).await.expect("the server runs").expect("is there");
        std::hint::black_box(Encoding::MessagePack.decode::<[u64; 7]>(&value).expect("decodes"));
    }
}

async fn redis_set(clients: Clients, worker: u64, rounds: u64) {
    let (keys, mut client) = (keys(), clients[worker as usize].lock().await);
    for round in 0..rounds {
        let value = Encoding::MessagePack.encode(&[u64::MAX; 7]).expect("encodes");
        client.set(&keys[((worker * 31 + round) % KEYS) as usize], &value).await.expect("the server runs");
    }
}

/// 64 readers in this process, of the store in it, and of redis each by a connection over loopback.
async fn get_redis(plan: Plan) -> Result<Figures> {
    let folder = Folder::new()?;
    let server = Redis::start(&folder.0, false).await?;
    let clients = clients(&server).await?;
    redis_set(Arc::clone(&clients), 0, KEYS).await;
    let node = node([Store::memory().namespace("bench").into_definition()]).await?;
    let namespace = filled(node.bus()).await?;
    let ours = Side::new("edri", move |rounds| {
        let namespace = namespace.clone();
        timed(by_many(REQUESTERS, rounds, move |worker, rounds| read(namespace.clone(), worker, rounds)))
    });
    let reference = Side::new("redis", move |rounds| {
        let clients = Arc::clone(&clients);
        timed(by_many(REQUESTERS, rounds, move |worker, rounds| redis_get(Arc::clone(&clients), worker, rounds)))
    });
    let figures = compare(&plan, ours, vec![reference]).await;
    stop(node).await?;
    Ok(figures)
}

/// 64 writers in this process, each of whom waits until its own is on disk: in the store's file, and in redis' log.
async fn set_redis(plan: Plan) -> Result<Figures> {
    let folder = Folder::new()?;
    let server = Redis::start(&folder.0, true).await?;
    let clients = clients(&server).await?;
    let node = node([Store::open(folder.0.join("store")).namespace("bench").into_definition()]).await?;
    let namespace = Namespace::new(node.bus(), "bench");
    let ours = Side::new("edri", move |rounds| {
        let namespace = namespace.clone();
        timed(by_many(REQUESTERS, rounds, move |worker, rounds| write(namespace.clone(), worker, rounds)))
    });
    let reference = Side::new("redis, synced always", move |rounds| {
        let clients = Arc::clone(&clients);
        timed(by_many(REQUESTERS, rounds, move |worker, rounds| redis_set(Arc::clone(&clients), worker, rounds)))
    });
    let figures = compare(&plan, ours, vec![reference]).await;
    stop(node).await?;
    Ok(figures)
}

/// A key, a value, and whom to tell.
type Put = (String, Vec<u8>, oneshot::Sender<()>);

async fn put(engine: mpsc::SyncSender<Put>, worker: u64, rounds: u64) {
    let keys = keys();
    let value = Encoding::MessagePack.encode(&[u64::MAX; 7]).expect("encodes");
    for round in 0..rounds {
        let key = keys[((worker * 31 + round) % KEYS) as usize].clone();
        let (done, is_done) = oneshot::channel();
        // There are fewer writers than places.
        engine.try_send((key, value.to_vec(), done)).expect("has room");
        is_done.await.expect("is written");
    }
}

/// The engine alone: one thread that takes what waits into one transaction.
fn engine(path: PathBuf) -> Result<mpsc::SyncSender<Put>> {
    const TABLE: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("bench");
    let database = redb::Database::builder().create_with_file_format_v3(true).create(path)?;
    let (queue, work) = mpsc::sync_channel::<Put>(BATCH_MAX);
    let commit = move |batch: &[Put]| -> Result<()> {
        let transaction = database.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, value, _) in batch {
                table.insert(&**key, &**value)?;
            }
        }
        Ok(transaction.commit()?)
    };
    std::thread::spawn(move || {
        while let Ok(first) = work.recv() {
            let mut batch = vec![first];
            batch.extend(work.try_iter().take(BATCH_MAX - 1));
            commit(&batch).expect("the disk takes it");
            for (_, _, done) in batch {
                let _ = done.send(());
            }
        }
    });
    Ok(queue)
}
