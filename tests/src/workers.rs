//! A worker that uses all of its context, to be run as a task and as a process.

use std::time::Duration;

use edri::Typed;
use edri::prelude::*;

/// A notification; a [`Followed`] follows from it.
#[event(notification, name = "same.noted")]
pub struct Noted {
    /// Which.
    pub number: u64,
}

/// Follows from a [`Noted`].
#[event(notification, name = "same.followed")]
pub struct Followed {
    /// Which.
    pub number: u64,
}

/// Answered with its own text behind the worker's greeting.
#[event(request, name = "same.echo", response = String)]
pub struct Echo {
    /// The text.
    pub text: String,
}

/// Answered after a while, several at a time.
#[event(request, name = "same.beside", response = u64)]
pub struct Beside {
    /// Comes back.
    pub number: u64,
    /// How long it takes.
    pub pause_ms: u64,
}

/// Answered by whoever knows.
#[event(request, name = "same.know", response = u64, timeout = "5s")]
pub struct Know {
    /// What.
    pub number: u64,
}

/// What the worker is to do for its answer.
#[event(request, name = "same.ask", response = u64, timeout = "10s")]
pub enum Ask {
    /// Ask for a [`Know`].
    One(u64),
    /// Ask all who know, and add up.
    All(u64),
    /// Ask a manager by name.
    Named(String, u64),
    /// Ask what nobody answers.
    Nobody,
    /// Answer later, from elsewhere.
    Later(u64),
    /// Send so many words through a [`Lower`] tunnel, and count what comes back.
    Pour(u64),
    /// Open a tunnel whose worker fails.
    PourInVain,
    /// Wait until nobody waits, then publish a [`Followed`] of this number.
    Wait(u64),
    /// Publish so many in one batch.
    Batch(u64),
    /// Compute for so many milliseconds without a pause.
    Block(u64),
}

/// Ways to end badly.
#[event(request, name = "same.misdo", response = (), idempotent)]
pub enum Misdo {
    /// Panic.
    Panic,
    /// End the process.
    Exit,
    /// Fail.
    Fail,
    /// Panic unless a worker was lost over it before.
    Once,
}

/// What the worker knows of the event in its hands and of itself.
#[event(request, name = "same.tell", response = Told, timeout = "5s")]
pub struct Tell {}

/// The answer to [`Tell`].
#[data]
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// The worker's address, as text.
    pub address: String,
    /// Who asked.
    pub origin: String,
    /// Its number.
    pub instance: usize,
    /// The process.
    pub pid: u32,
    /// The event's id.
    pub id: String,
    /// The header `tenant`.
    pub tenant: Option<String>,
    /// The trace that the event stands in.
    pub trace: String,
    /// How many milliseconds are left.
    pub remaining_ms: u64,
}

/// Words up, the same in capitals down.
#[event(tunnel, name = "same.upper", up = String, down = String, result = u64)]
pub struct Upper {}

/// Words up, the same without capitals down; fails over the word `stone`.
#[event(tunnel, name = "same.lower", up = String, down = String, result = u64)]
pub struct Lower {}

/// What the worker is made with.
#[data]
#[derive(Clone)]
pub struct Settings {
    /// Comes before every echo.
    pub greeting: String,
}

/// Does all of it.
pub struct Versatile {
    settings: Settings,
    seen: u64,
}

/// A manager of one [`Versatile`] that greets so.
pub fn versatile(greeting: &str) -> Manager<Typed<Versatile>> {
    Manager::new("versatile")
        .workers_with(1, &Settings { greeting: greeting.to_owned() }, |settings| Versatile { settings, seen: 0 })
        .handles::<Noted>()
        .handles::<Echo>()
        .handles_concurrently::<Beside>()
        .handles::<Ask>()
        .handles::<Misdo>()
        .handles::<Tell>()
        .handles::<Upper>()
}

impl Worker for Versatile {
    async fn started(&mut self, cx: &mut Context) -> Result<(), Failure> {
        cx.report_figure("started", 1.0);
        if self.settings.greeting.is_empty() {
            return Err(Failure::new("no_greeting", "there is nothing to greet with").for_good());
        }
        Ok(())
    }
}

impl Handle<Noted> for Versatile {
    async fn handle(&mut self, noted: &Noted, cx: &mut Context) -> Result<(), Failure> {
        self.seen += 1;
        cx.report_figure("seen", self.seen as f64);
        cx.publish(Followed { number: noted.number }).await?;
        Ok(())
    }
}

impl Handle<Echo> for Versatile {
    async fn handle(&mut self, echo: &Echo, _: &mut Context) -> Result<String, Failure> {
        Ok(format!("{}{}", self.settings.greeting, echo.text))
    }
}

impl HandleConcurrent<Beside> for Versatile {
    async fn handle(&self, beside: &Beside, _: &mut Context) -> Result<u64, Failure> {
        tokio::time::sleep(Duration::from_millis(beside.pause_ms)).await;
        Ok(beside.number)
    }
}

impl Handle<Ask> for Versatile {
    async fn handle(&mut self, ask: &Ask, cx: &mut Context) -> Result<u64, Failure> {
        match ask {
            Ask::One(number) => Ok(cx.request(Know { number: *number }).await?),
            Ask::All(number) => {
                let mut answers = cx.bus().request_all(Know { number: *number }).await?;
                let mut sum = 0;
                while let Some(answer) = answers.next().await {
                    sum += answer.result?;
                }
                Ok(sum)
            }
            Ask::Named(manager, number) => Ok(cx.bus().request_to(manager, Know { number: *number }).await?),
            Ask::Nobody => match cx.request(Nowhere {}).await {
                Err(error) => Err(Failure::new(error.code().to_owned(), error.to_string())),
                Ok(()) => Ok(0),
            },
            Ask::Later(number) => {
                let (reply, number) = (cx.defer::<Ask>()?, *number);
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    reply.send(Ok(number));
                });
                Err(Failure::deferred())
            }
            Ask::Pour(words) => pour(*words, cx).await,
            Ask::PourInVain => {
                let mut tunnel = cx.open(Lower {}).await?;
                tunnel.send("stone".to_owned()).await?;
                tunnel.result().await.map_err(|error| Failure::new(error.code().to_owned(), error.to_string()))
            }
            Ask::Wait(number) => {
                cx.report_figure("waits", 1.0);
                cx.cancelled().await;
                cx.publish(Followed { number: *number }).await?;
                Ok(0)
            }
            Ask::Batch(count) => {
                let receipt = cx.bus().publish_batch((0..*count).map(|number| Followed { number })).await?;
                Ok(u64::from(receipt.deliveries))
            }
            Ask::Block(millis) => {
                std::thread::sleep(Duration::from_millis(*millis));
                Ok(*millis)
            }
        }
    }
}

async fn pour(words: u64, cx: &Context) -> Result<u64, Failure> {
    let (mut sender, mut receiver, outcome) = cx.open(Lower {}).await?.split();
    let sending = tokio::spawn(async move {
        for number in 0..words {
            sender.send(format!("WORD {number}")).await?;
        }
        sender.finish();
        Ok::<_, edri::TunnelError>(())
    });
    for number in 0..words {
        let word = receiver.recv().await?;
        if word != Some(format!("word {number}")) {
            return Err(Failure::message(format!("word {number} came as {word:?}")));
        }
    }
    sending.await??;
    Ok(outcome.result().await?)
}

/// Answered by nobody.
#[event(request, name = "same.nowhere", response = ())]
pub struct Nowhere {}

impl Handle<Misdo> for Versatile {
    async fn handle(&mut self, misdo: &Misdo, cx: &mut Context) -> Result<(), Failure> {
        match misdo {
            Misdo::Panic => panic!("it was told to panic"),
            Misdo::Exit => std::process::exit(0),
            Misdo::Fail => Err(Failure::new("told_to", "it was told to fail").with_detail("in detail")),
            Misdo::Once if !cx.is_redelivered() => panic!("once is enough"),
            Misdo::Once => Ok(()),
        }
    }
}

impl Handle<Tell> for Versatile {
    async fn handle(&mut self, _: &Tell, cx: &mut Context) -> Result<Told, Failure> {
        let envelope = cx.envelope().cloned().ok_or_else(|| Failure::message("nothing is in hand"))?;
        Ok(Told {
            address: cx.address().to_string(),
            origin: envelope.head().origin.node.to_string(),
            instance: cx.instance(),
            pid: std::process::id(),
            id: envelope.id().to_string(),
            tenant: envelope.header("tenant").map(str::to_owned),
            trace: envelope.trace().to_string(),
            remaining_ms: cx.remaining().map_or(0, |left| left.as_millis() as u64),
        })
    }
}

impl Handle<Upper> for Versatile {
    async fn handle(&mut self, _: &Upper, cx: &mut Context) -> Result<u64, Failure> {
        let mut tunnel = cx.accept::<Upper>()?;
        let mut count = 0;
        while let Some(word) = tunnel.recv().await? {
            if word == "stone" {
                return Err(Failure::new("stone", "there is a stone"));
            }
            tunnel.send(word.to_uppercase()).await?;
            count += 1;
        }
        Ok(count)
    }
}

/// The worker of [`Lower`].
pub struct Lowers;

impl Worker for Lowers {}

impl Handle<Lower> for Lowers {
    async fn handle(&mut self, _: &Lower, cx: &mut Context) -> Result<u64, Failure> {
        let mut tunnel = cx.accept::<Lower>()?;
        let mut count = 0;
        while let Some(word) = tunnel.recv().await? {
            if word == "stone" {
                return Err(Failure::new("stone", "there is a stone"));
            }
            tunnel.send(word.to_lowercase()).await?;
            count += 1;
        }
        Ok(count)
    }
}
