//! What a program without edri would do by hand: bounded tokio channels, a task at the end of each.

use std::time::{Duration, Instant};

use edri::{Envelope, key_hash};
use edri_router::INBOX_CAPACITY_DEFAULT;
use tokio::sync::{mpsc, oneshot};

use crate::event::{Ask, Done, Oracle, Sealer, Sink, Tick};
use crate::harness::Side;

/// How a task takes events out of its channel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Take {
    OneByOne,
    /// As many as there are, up to so many.
    Many(usize),
}

/// How events are put into a channel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Put {
    OneByOne,
    /// Places for so many are waited for together.
    Many(usize),
}

/// Which of several channels an event goes to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Spread {
    /// Each gets every event.
    All,
    /// Its key chooses.
    ByKey,
}

/// As many as a consumer takes at once when it takes many.
const MANY: usize = 64;

/// Both ways to receive; the faster counts.
pub(crate) fn channels(count: usize, spread: Spread, last_keys: &[u64]) -> Vec<Side> {
    vec![
        notify("mpsc recv", count, spread, Take::OneByOne, last_keys),
        notify("mpsc recv_many", count, spread, Take::Many(MANY), last_keys),
    ]
}

fn notify(name: &'static str, count: usize, spread: Spread, take: Take, last_keys: &[u64]) -> Side {
    let done = Done::new();
    let senders: Vec<_> = (0..count).map(|_| consumer(take, &done)).collect();
    let (sealer, last_keys) = (Sealer::new(), last_keys.to_vec());
    Side::new(name, move |rounds| {
        let (senders, sealer, last_keys, done) = (senders.clone(), sealer.clone(), last_keys.clone(), done.clone());
        async move {
            let began = Instant::now();
            for number in 0..rounds {
                send(&senders, spread, sealer.seal(Tick::new(number))).await;
            }
            for key in last_keys {
                send(&senders, spread, sealer.seal(Tick::last(key))).await;
            }
            done.all(senders.len()).await;
            began.elapsed()
        }
    })
}

async fn send(senders: &[mpsc::Sender<Envelope>], spread: Spread, envelope: Envelope) {
    const GONE: &str = "its consumer runs as long as it";
    match (spread, senders) {
        (_, [sender]) => sender.send(envelope).await.expect(GONE),
        (Spread::ByKey, senders) => {
            let hash = envelope.with_key(|key| key.map_or(0, key_hash));
            senders[(hash % senders.len() as u64) as usize].send(envelope).await.expect(GONE);
        }
        (Spread::All, senders) => {
            for sender in senders {
                sender.send(envelope.clone()).await.expect(GONE);
            }
        }
    }
}

/// A channel with as many places as an inbox, and the handler at its end.
fn consumer(take: Take, done: &Done) -> mpsc::Sender<Envelope> {
    let (sender, mut receiver) = mpsc::channel::<Envelope>(INBOX_CAPACITY_DEFAULT);
    let mut sink = Sink::new(done);
    tokio::spawn(async move {
        match take {
            Take::OneByOne => {
                while let Some(envelope) = receiver.recv().await {
                    handle(&mut sink, &envelope).await;
                }
            }
            Take::Many(most) => {
                let mut batch = Vec::with_capacity(most);
                while receiver.recv_many(&mut batch, most).await > 0 {
                    for envelope in batch.drain(..) {
                        handle(&mut sink, &envelope).await;
                    }
                }
            }
        }
    });
    sender
}

async fn handle(sink: &mut Sink, envelope: &Envelope) {
    let tick = envelope.payload::<Tick>().expect("a tick");
    sink.take(tick).await.expect("never fails");
}

/// Batches of `size` into one channel.
pub(crate) fn batches(name: &'static str, size: usize, put: Put) -> Side {
    let done = Done::new();
    let sender = consumer(Take::Many(MANY), &done);
    let sealer = Sealer::new();
    Side::new(name, move |rounds| {
        let (sender, sealer, done) = (sender.clone(), sealer.clone(), done.clone());
        async move {
            let began = Instant::now();
            let mut sent = 0;
            while sent < rounds {
                let count = (rounds - sent).min(size as u64);
                put_batch(&sender, put, (sent..sent + count).map(|number| sealer.seal(Tick::new(number)))).await;
                sent += count;
            }
            sender.send(sealer.seal(Tick::last(0))).await.expect("its consumer runs as long as it");
            done.all(1).await;
            began.elapsed()
        }
    })
}

async fn put_batch(sender: &mpsc::Sender<Envelope>, put: Put, mut envelopes: impl Iterator<Item = Envelope>) {
    const GONE: &str = "its consumer runs as long as it";
    match put {
        Put::OneByOne => {
            for envelope in envelopes {
                sender.send(envelope).await.expect(GONE);
            }
        }
        Put::Many(most) => {
            for (permit, envelope) in sender.reserve_many(most).await.expect(GONE).zip(&mut envelopes) {
                permit.send(envelope);
            }
        }
    }
}

/// A question and where its answer goes.
pub(crate) type Call = (Envelope, oneshot::Sender<u64>);

/// A channel with as many places as an inbox, and whoever answers at its end.
pub(crate) fn oracle(take: Take) -> mpsc::Sender<Call> {
    let (sender, mut receiver) = mpsc::channel::<Call>(INBOX_CAPACITY_DEFAULT);
    let mut oracle = Oracle;
    tokio::spawn(async move {
        match take {
            Take::OneByOne => {
                while let Some(call) = receiver.recv().await {
                    answer(&mut oracle, call).await;
                }
            }
            Take::Many(most) => {
                let mut batch = Vec::with_capacity(most);
                while receiver.recv_many(&mut batch, most).await > 0 {
                    for call in batch.drain(..) {
                        answer(&mut oracle, call).await;
                    }
                }
            }
        }
    });
    sender
}

async fn answer(oracle: &mut Oracle, (envelope, reply): Call) {
    let ask = envelope.payload::<Ask>().expect("an ask");
    let answer = oracle.answer(ask).await.expect("never fails");
    // A requester of a benchmark does not give up.
    let _ = reply.send(answer);
}

/// Asks so many questions one after another.
pub(crate) async fn ask(sender: mpsc::Sender<Call>, sealer: Sealer, rounds: u64) {
    for number in 0..rounds {
        let (reply, answer) = oneshot::channel();
        sender.send((sealer.seal(Ask::new(number)), reply)).await.expect("the oracle runs");
        std::hint::black_box(answer.await.expect("the oracle answers"));
    }
}

/// How long `future` takes.
pub(crate) async fn timed(future: impl Future) -> Duration {
    let began = Instant::now();
    future.await;
    began.elapsed()
}
