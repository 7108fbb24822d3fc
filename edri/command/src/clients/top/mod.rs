//! `top`: a live view of a node, or of all nodes of its cluster.
//!
//! ```text
//!   node ── edri.node.describe ──▶ Snapshot ─┐
//!                                            ├─▶ Figures ─▶ view ─▶ screen     pure, from two snapshots
//!                        the one before ─────┘
//! ```

mod figures;
mod screen;
mod view;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use edri::Topology;

use super::connection::Session;
use super::payload;
use super::run::Work;
use crate::exit::Failed;
use figures::Figures;
use screen::{Pressed, Screen};
use view::View;

/// The shortest time between two looks.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// How long a node may take to tell of itself.
const ANSWER_TIME: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub(crate) struct Top {
    /// How often it is looked: `500ms`, `2s`.
    #[arg(long, value_parser = payload::span, default_value = "1s")]
    interval: Duration,
    /// Looks at this node of the cluster instead of the one that the command is connected to.
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    /// Looks at all nodes of the cluster.
    #[arg(long, conflicts_with = "to")]
    all: bool,
    /// Ends after so many looks.
    #[arg(long)]
    count: Option<u64>,
}

/// What was seen at one moment.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) at: Instant,
    pub(super) nodes: Vec<Topology>,
}

impl Top {
    async fn look(&self, session: &Session) -> Result<Snapshot, Failed> {
        let described = session.describe_some(self.to.as_deref(), self.all);
        match tokio::time::timeout(ANSWER_TIME, described).await {
            Ok(nodes) => Ok(Snapshot { at: Instant::now(), nodes: nodes? }),
            Err(_) => Err(Failed::timed_out("the node does not tell of itself in time: it may be stuck, or cut off")),
        }
    }
}

impl Work for Top {
    async fn work(self, session: Session) -> Result<(), Failed> {
        // What is wrong from the beginning is told, and not painted.
        let first = self.look(&session).await?;
        if session.out.json || !std::io::stdout().is_terminal() {
            return lines(&self, &session, first).await;
        }
        full_screen(&self, &session, first).await
    }
}

/// A few lines every time, for files and pipes.
async fn lines(top: &Top, session: &Session, mut before: Snapshot) -> Result<(), Failed> {
    let mut left = top.count;
    while left != Some(0) {
        tokio::time::sleep(top.interval.max(INTERVAL_MIN)).await;
        let now = top.look(session).await?;
        let figures = Figures::between(&before, &now);
        if session.out.json {
            session.out.value(&figures)?;
        } else {
            for line in figures.lines() {
                session.out.line(&super::output::clean(&line))?;
            }
        }
        left = left.map(|left| left - 1);
        before = now;
    }
    Ok(())
}

async fn full_screen(top: &Top, session: &Session, first: Snapshot) -> Result<(), Failed> {
    // Ended when this is dropped, however that comes.
    let mut screen = Screen::begin().map_err(|error| Failed::new(format!("the terminal: {error}")))?;
    let mut view = View::new(!session.out.colour);
    let mut figures = Figures::between(&first, &first);
    let (mut before, mut left) = (first, top.count);
    let mut ticks = tokio::time::interval(top.interval.max(INTERVAL_MIN));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    // Beside the keys, which are heard while a node does not answer.
    let mut looking = None;
    loop {
        screen
            .draw(|frame| view.draw(frame, &figures))
            .map_err(|error| Failed::new(format!("the terminal: {error}")))?;
        if left == Some(0) {
            return Ok(());
        }
        tokio::select! {
            biased;
            pressed = screen.pressed() => match pressed {
                Some(Pressed::Key(key)) if view.press(key) => return Ok(()),
                // As Ctrl-C is no signal while the screen is ours.
                Some(Pressed::Interrupt) => return Err(Failed::interrupted()),
                Some(Pressed::Key(_) | Pressed::Resize) => {}
                None => return Err(Failed::new("the terminal is gone")),
            },
            _ = ticks.tick(), if looking.is_none() => looking = Some(Box::pin(top.look(session))),
            looked = ended(&mut looking), if looking.is_some() => {
                looking = None;
                left = left.map(|left| left - 1);
                match looked {
                    Ok(now) => {
                        view.lost = None;
                        if !view.paused {
                            figures = Figures::between(&before, &now);
                        }
                        before = now;
                    }
                    // It may come back.
                    Err(failed) => view.lost = Some(failed.message),
                }
            }
        }
    }
}

/// What comes of the look that is under way; nothing while there is none.
async fn ended<F: Future + Unpin>(looking: &mut Option<F>) -> F::Output {
    match looking {
        Some(looking) => looking.await,
        None => std::future::pending().await,
    }
}
