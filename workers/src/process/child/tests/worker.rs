//! A worker that does what its events ask for.

use edri_events::{Kind, Value, event};
use edri_router::{Reply, TryPublishError};

use super::*;
use crate::instance::Blueprint;
use crate::{Context, Handle, HandleAny, HandleConcurrent, Worker};

#[event(notification, name = "test.noted", crate = edri_events)]
pub(super) struct Noted {
    pub(super) what: String,
}

#[event(request, name = "test.ask", response = String, crate = edri_events)]
pub(super) struct Ask {
    pub(super) what: String,
}

#[event(request, name = "test.beside", response = u64, idempotent, crate = edri_events)]
pub(super) struct Beside {
    pub(super) number: u64,
}

#[event(tunnel, name = "test.pipe", up = u64, down = u64, result = u64, crate = edri_events)]
pub(super) struct Pipe {
    pub(super) fail: bool,
}

/// Known to the node alone.
#[event(request, name = "node.ask", response = u64, timeout = "200ms", crate = edri_events)]
pub(super) struct AskNode {
    pub(super) number: u64,
}

#[event(notification, name = "node.note", crate = edri_events)]
pub(super) struct NoteNode {
    pub(super) number: u64,
}

#[event(tunnel, name = "node.pipe", up = u64, down = u64, result = u64, crate = edri_events)]
pub(super) struct PipeNode {}

#[derive(Default)]
pub(super) struct Tester {
    pub(super) kept: Option<Reply<String>>,
    pub(super) seen: u64,
    pub(super) fail_start: bool,
    pub(super) deaf: bool,
}

impl Worker for Tester {
    async fn started(&mut self, cx: &mut Context) -> Result<(), Failure> {
        if self.fail_start {
            return Err(Failure::new("no_disk", "there is no disk"));
        }
        cx.report_health(Health::Degraded("warming up".to_owned()));
        Ok(())
    }

    async fn stopping(&mut self, cx: &mut Context) {
        if !self.deaf {
            let _ = cx.publish(NoteNode { number: self.seen }).await;
        }
    }
}

impl Handle<Noted> for Tester {
    async fn handle(&mut self, noted: &Noted, cx: &mut Context) -> Result<(), Failure> {
        self.seen += 1;
        match noted.what.as_str() {
            "fail" => Err(Failure::new("broken", "as asked").with_detail("line 1")),
            "panic" => panic!("at the disco"),
            "publish" => {
                let receipt = cx.publish(NoteNode { number: 7 }).await?;
                assert_eq!(receipt.deliveries, 3);
                Ok(())
            }
            "batch" => {
                let receipt = cx.bus().publish_batch((0..5).map(|number| NoteNode { number })).await?;
                assert_eq!(receipt.deliveries, 5);
                Ok(())
            }
            "publish_code" => match cx.publish(NoteNode { number: 7 }).await {
                Ok(_) => Ok(()),
                Err(error) => Err(Failure::new(error.code().to_owned(), error.to_string())),
            },
            "try" => {
                let mut tried = 0;
                loop {
                    match cx.try_publish(NoteNode { number: tried }) {
                        Ok(_) => tried += 1,
                        Err(TryPublishError::Full { event, .. }) => {
                            assert_eq!(event.number, tried, "the event comes back");
                            return Err(Failure::new("full", tried.to_string()));
                        }
                        Err(error) => return Err(Failure::message(error.to_string())),
                    }
                }
            }
            "subscribe" => match cx.bus().subscribe::<Noted>().await {
                Ok(_) => Ok(()),
                Err(error) => Err(Failure::new(error.code(), error.to_string())),
            },
            "spin" => loop {
                std::thread::sleep(Duration::from_millis(1));
            },
            _ => Ok(()),
        }
    }
}

impl Handle<Ask> for Tester {
    async fn handle(&mut self, ask: &Ask, cx: &mut Context) -> Result<String, Failure> {
        self.seen += 1;
        let code = |error: RequestError| Failure::new(error.code().to_owned(), error.to_string());
        match ask.what.as_str() {
            "defer" => {
                self.kept = Some(cx.defer::<Ask>()?);
                Err(Failure::deferred())
            }
            "answer kept" => {
                let wanted = self.kept.take().is_some_and(|reply| reply.send(Ok("later".to_owned())));
                Ok(wanted.to_string())
            }
            "node" => Ok(cx.request(AskNode { number: 20 }).await.map_err(code)?.to_string()),
            "untyped" => {
                let body =
                    cx.bus().untyped().request("node.unseen", serde_json::json!({"a": 1})).await.map_err(code)?;
                Ok(body.decode::<u64>()?.to_string())
            }
            "described" => {
                let event = cx.bus().untyped().event("node.unseen", Kind::Request)?;
                let asked = std::collections::BTreeMap::from([("a".to_owned(), 1_u64)]);
                let answer: u64 = cx.bus().described(&event).request(asked).await.map_err(code)?;
                Ok(answer.to_string())
            }
            "node to" => Ok(cx.bus().request_to("other", AskNode { number: 1 }).await.map_err(code)?.to_string()),
            "all" => {
                let mut answers = cx.bus().request_all(AskNode { number: 1 }).await.map_err(code)?;
                let mut texts = Vec::new();
                while let Some(answer) = answers.next().await {
                    let result = answer.result.map_or_else(|error| error.code().to_owned(), |n| n.to_string());
                    texts.push(format!("{} {result}", answer.manager));
                }
                assert_eq!(answers.open(), 0);
                Ok(texts.join(", "))
            }
            "drop" => {
                let dropped = tokio::time::timeout(Duration::ZERO, cx.request(AskNode { number: 1 })).await;
                Ok(dropped.is_err().to_string())
            }
            "cancelled" => {
                cx.cancelled().await;
                Ok("nobody reads this".to_owned())
            }
            "open" => {
                let mut tunnel = cx.open(PipeNode {}).await.map_err(code)?;
                for item in 0..3 {
                    tunnel.send(item).await?;
                }
                tunnel.finish();
                let mut sum = 0;
                while let Some(item) = tunnel.recv().await? {
                    sum += item;
                }
                Ok((sum + tunnel.result().await?).to_string())
            }
            "who" => {
                let envelope = cx.envelope().expect("in hand");
                let head = envelope.head();
                Ok(format!(
                    "{} {} from {} as {} try {} {} {:?} {}",
                    head.id,
                    cx.trace().expect("in hand"),
                    *head.origin,
                    cx.address(),
                    cx.attempt(),
                    cx.is_redelivered(),
                    envelope.header("tenant"),
                    cx.remaining().expect("has a deadline").as_millis() <= 5000,
                ))
            }
            what => Ok(what.to_uppercase()),
        }
    }
}

impl HandleConcurrent<Beside> for Tester {
    async fn handle(&self, beside: &Beside, cx: &mut Context) -> Result<u64, Failure> {
        if beside.number == 13 {
            panic!("unlucky");
        }
        Ok(cx.request(AskNode { number: beside.number }).await?)
    }
}

impl Handle<Pipe> for Tester {
    async fn handle(&mut self, pipe: &Pipe, cx: &mut Context) -> Result<u64, Failure> {
        let mut tunnel = cx.accept::<Pipe>()?;
        let mut sum = 0;
        while let Some(item) = tunnel.recv().await? {
            sum += item;
            tunnel.send(item * 10).await?;
        }
        if pipe.fail { Err(Failure::new("enough", "of it")) } else { Ok(sum) }
    }
}

impl HandleAny for Tester {
    async fn handle(&mut self, event: &Envelope, _: &mut Context) -> Result<Option<Value>, Failure> {
        Err(Failure::new("untyped", event.name().to_string()))
    }
}

pub(super) const NOTED: u32 = 0;
pub(super) const ASK: u32 = 1;
pub(super) const BESIDE: u32 = 2;
pub(super) const PIPE: u32 = 3;
pub(super) const ANY: u32 = 4;

pub(super) fn hosted(make: impl Fn() -> Tester + Send + Sync + 'static) -> Hosted {
    let mut blueprint = Blueprint::<Tester>::default();
    blueprint.handles::<Noted>();
    blueprint.handles::<Ask>();
    blueprint.handles_concurrently::<Beside>();
    blueprint.handles::<Pipe>();
    blueprint.handles_any(Pattern::new("any.>").expect("a pattern"));
    Hosted {
        manager: ManagerName::new("tester").expect("valid"),
        events: blueprint.events().to_vec(),
        selections: blueprint.selections().to_vec(),
        factory: blueprint.factory(make),
        concurrency: 64,
        policy: Policy::default(),
        arguments: None,
    }
}
