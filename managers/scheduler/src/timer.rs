//! The task that owns the schedule and waits for what is due. It never waits for anybody else: what is due goes to those who send,
//! what has changed to those who keep it, as far as they take it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use edri_events::Failure;
use tokio::sync::{mpsc, oneshot};

use crate::Entry;
use crate::event::{Added, Cancelled, Ended as LastRun, Page, Problem, RunningNow, Status};
use crate::keep::{Change, Record};
use crate::limits::{CLOCK_LOOK, CLOCK_STEP_MIN, QUEUE};
use crate::plan::{Now, Plan};
use crate::schedule::{Before, Begun, Outcome, Refused, Run, Schedule, State};
use crate::send::{Ended, time_text};

/// How many due entries are looked at before somebody else may say something.
const BATCH: usize = 256;
/// About how many bytes a page of entries may have.
const PAGE_BYTES: usize = 1 << 20;

/// Somebody who waits to hear that a change is kept.
pub(crate) type Kept = Option<oneshot::Receiver<Result<(), String>>>;

/// What the timer is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    Add {
        id: String,
        entry: Box<Entry>,
        plan: Box<Plan>,
        reply: Reply<(Added, Kept)>,
    },
    Cancel {
        id: String,
        reply: Reply<(Cancelled, Kept)>,
    },
    Pause {
        id: String,
        reply: Reply<(Status, Kept)>,
    },
    Resume {
        id: String,
        reply: Reply<(Status, Kept)>,
    },
    RunNow {
        id: String,
        reply: Reply<RunningNow>,
    },
    Get {
        id: String,
        reply: Reply<Status>,
    },
    List {
        prefix: String,
        after: Option<String>,
        limit: usize,
        reply: Reply<Page>,
    },
    /// Sends nothing more by itself.
    Stop,
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Failure>>;

/// Reads both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    began: Instant,
}

impl Clocks {
    pub(crate) fn start() -> Self {
        Self { began: Instant::now() }
    }

    pub(crate) fn now(self) -> Now {
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        // A clock that was never set may stand before 1970.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { wall: micros(wall), steady: micros(self.began.elapsed()) }
    }
}

pub(crate) struct Timer {
    pub(crate) clocks: Clocks,
    pub(crate) schedule: Schedule,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) ended: mpsc::Receiver<Ended>,
    pub(crate) runs: mpsc::Sender<Run>,
    /// Where changes go, if entries are kept.
    pub(crate) changes: Option<mpsc::Sender<Change>>,
    /// Runs that are to be sent.
    pub(crate) outgoing: VecDeque<Run>,
    /// Entries that have changed, and who waits to hear that they are kept.
    pub(crate) changed: HashMap<Arc<str>, Vec<oneshot::Sender<Result<(), String>>>>,
    pub(crate) stopped: bool,
}

impl Timer {
    /// Runs until nobody can ask it for anything any more, and what it had to say is said.
    pub(crate) async fn run(mut self) {
        let mut offset = None;
        loop {
            let now = self.clocks.now();
            look_for_a_step(&mut offset, now);
            self.take_what_is_due(now);
            let keep = self.changes.as_ref().filter(|_| !self.changed.is_empty()).cloned();
            let wait = self.wait(now);
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => break,
                },
                Some(ended) = self.ended.recv() => self.note(ended),
                true = has_room(&self.runs), if !self.outgoing.is_empty() => self.send_more(),
                Some(Ok(permit)) = reserve(keep) => {
                    if let Some(change) = self.take_change() {
                        permit.send(change);
                    }
                }
                () = tokio::time::sleep(wait), if self.outgoing.is_empty() => {}
            }
        }
        self.say_the_rest().await;
    }

    fn wait(&self, now: Now) -> Duration {
        const IDLE: Duration = Duration::from_secs(3600);
        if self.stopped {
            return IDLE;
        }
        let wait = self.schedule.wait(now).map_or(IDLE, |wait| Duration::from_micros(wait.unsigned_abs()));
        if self.schedule.minds_the_wall() { wait.min(CLOCK_LOOK) } else { wait.min(IDLE) }
    }

    /// No more than the next can take at once, so that what is due waits where it can still be cancelled.
    fn take_what_is_due(&mut self, now: Now) {
        let mut left = BATCH;
        while !self.stopped && self.outgoing.is_empty() && left > 0 {
            let Some((id, run)) = self.schedule.pop(now) else { break };
            self.has_changed(&id, None);
            self.outgoing.extend(run);
            left -= 1;
            if !self.outgoing.is_empty() {
                self.send_more();
            }
        }
    }

    fn send_more(&mut self) {
        while !self.outgoing.is_empty() {
            let Ok(permit) = self.runs.try_reserve() else { break };
            if let Some(run) = self.outgoing.pop_front() {
                permit.send(run);
            }
        }
    }

    fn note(&mut self, Ended { run, outcome }: Ended) {
        let now = self.clocks.now();
        let went_well = matches!(outcome, Outcome::Done | Outcome::Kept(_));
        let next = self.schedule.ended(run.slot, run.generation, run.due, outcome, now);
        self.outgoing.extend(next);
        // That it was sent was noted when it was.
        if !went_well || self.schedule.get(&run.id).is_none_or(|state| state.tally.finished) {
            self.has_changed(&run.id, None);
        }
    }

    // ---- what is asked ---------------------------------------------------------------------------------------------

    fn obey(&mut self, command: Command) {
        let now = self.clocks.now();
        // Whoever does not wait for an answer any more need not get one.
        match command {
            Command::Add { id, entry, plan, reply } => {
                let _ = reply.send(self.add(&id, *entry, *plan, now));
            }
            Command::Cancel { id, reply } => {
                let existed = self.schedule.cancel(&id);
                let kept = if existed { self.keep(&id) } else { None };
                let _ = reply.send(Ok((Cancelled { existed }, kept)));
            }
            Command::Pause { id, reply } => {
                let known = self.schedule.pause(&id);
                let _ = reply.send(self.changed_status(known, &id, now));
            }
            Command::Resume { id, reply } => {
                let known = self.schedule.resume(&id, now);
                let _ = reply.send(self.changed_status(known, &id, now));
            }
            Command::RunNow { id, reply } => {
                let _ = reply.send(self.run_now(&id, now));
            }
            Command::Get { id, reply } => {
                let status = self.schedule.get(&id).map(|state| status(state, now));
                let _ = reply.send(status.ok_or_else(|| unknown(&id)));
            }
            Command::List { prefix, after, limit, reply } => {
                let _ = reply.send(Ok(self.list(&prefix, after.as_deref(), limit, now)));
            }
            Command::Stop => self.stopped = true,
        }
    }

    fn add(&mut self, id: &str, entry: Entry, plan: Plan, now: Now) -> Result<(Added, Kept), Failure> {
        let replaced =
            self.schedule.add(id, Arc::new(entry), plan, None, now).map_err(|refused| refusal(id, refused))?;
        let next = self.schedule.get(id).and_then(|state| state.next_due(now)).map(time_text);
        Ok((Added { id: id.to_owned(), replaced, next }, self.keep(id)))
    }

    fn changed_status(&mut self, known: bool, id: &str, now: Now) -> Result<(Status, Kept), Failure> {
        let state = self.schedule.get(id).filter(|_| known).ok_or_else(|| unknown(id))?;
        let status = status(state, now);
        Ok((status, self.keep(id)))
    }

    fn run_now(&mut self, id: &str, now: Now) -> Result<RunningNow, Failure> {
        if self.outgoing.len() >= QUEUE {
            return Err(Failure::new("overloaded", "too many runs wait to be sent: ask again later"));
        }
        match self.schedule.run_now(id, now).ok_or_else(|| unknown(id))? {
            Begun::Run(run) => {
                self.outgoing.push_back(run);
                Ok(RunningNow { queued: false })
            }
            Begun::Queued => Ok(RunningNow { queued: true }),
            Begun::Skipped => Err(Failure::new(
                "still_running",
                format!("entry `{id}` is still running: ask again later, or give it another overlap policy"),
            )),
        }
    }

    fn list(&self, prefix: &str, after: Option<&str>, limit: usize, now: Now) -> Page {
        let mut states = self.schedule.list(prefix, after).peekable();
        let mut entries = Vec::new();
        let mut bytes = 0;
        while entries.len() < limit && bytes < PAGE_BYTES {
            let Some(state) = states.next() else { break };
            bytes += 512 + state.entry.send.payload().len();
            if let Some(last) = &state.last
                && let Outcome::Kept(response) = &last.outcome
            {
                bytes += response.len();
            }
            entries.push(status(state, now));
        }
        let more = states.peek().is_some();
        let next = entries.last().filter(|_| more).map(|status: &Status| status.id.clone());
        Page { next, entries, total: self.schedule.len() as u64 }
    }

    // ---- what is kept ----------------------------------------------------------------------------------------------

    /// Has an entry's change kept; where to hear that it is.
    fn keep(&mut self, id: &str) -> Kept {
        self.changes.as_ref()?;
        let (tell, told) = oneshot::channel();
        self.has_changed(&id.into(), Some(tell));
        Some(told)
    }

    fn has_changed(&mut self, id: &Arc<str>, waiting: Option<oneshot::Sender<Result<(), String>>>) {
        if self.changes.is_some() {
            self.changed.entry(Arc::clone(id)).or_default().extend(waiting);
        }
    }

    fn take_change(&mut self) -> Option<Change> {
        let id = self.changed.keys().next().cloned()?;
        let waiting = self.changed.remove(&id)?;
        let now = self.clocks.now();
        let record = self.schedule.get(&id).map(|state| {
            Box::new(Record { entry: (*state.entry).clone(), due: state.next_due(now), tally: state.tally })
        });
        Some(Change { id, record, waiting })
    }

    /// Hands over what has changed to be kept, and lets go of those who send.
    async fn say_the_rest(mut self) {
        if let Some(changes) = self.changes.take() {
            while let Some(change) = self.take_change() {
                if changes.send(change).await.is_err() {
                    break;
                }
            }
        }
    }
}

/// Waits for room, and takes none: nobody else sends there.
async fn has_room(runs: &mpsc::Sender<Run>) -> bool {
    runs.reserve().await.is_ok()
}

async fn reserve(changes: Option<mpsc::Sender<Change>>) -> Option<Result<mpsc::OwnedPermit<Change>, ()>> {
    Some(changes?.reserve_owned().await.map_err(drop))
}

/// Says so when the system's clock was set; what it means is in the schedule, which goes by what the clock shows.
fn look_for_a_step(offset: &mut Option<i64>, now: Now) {
    let new = now.wall - now.steady;
    if let Some(old) = offset.replace(new)
        && (new - old).unsigned_abs() > CLOCK_STEP_MIN.as_micros() as u64
    {
        let by = (new - old) as f64 / 1e6;
        tracing::warn!(
            by,
            "the system's clock was set: what goes by it follows, and nothing is sent twice for one due time"
        );
    }
}

pub(crate) fn refusal(id: &str, refused: Refused) -> Failure {
    match refused {
        Refused::Full => {
            Failure::new("too_many", "the scheduler has as many entries as it may: cancel some, or raise `entries_max`")
        }
        Refused::Never => Failure::new("never_due", format!("entry `{id}` has no due time that is still to come")),
    }
}

/// What an entry was before, from what was kept of it.
pub(crate) fn before(record: &Record) -> Before {
    Before { tally: record.tally, due: record.due }
}

fn unknown(id: &str) -> Failure {
    Failure::new("unknown_entry", format!("the scheduler has no entry `{}`", id.chars().take(256).collect::<String>()))
}

fn status(state: &State, now: Now) -> Status {
    let tally = state.tally;
    Status {
        id: state.id.to_string(),
        entry: (*state.entry).clone(),
        next: state.next_due(now).map(time_text),
        paused: tally.paused,
        finished: tally.finished,
        running: state.running(),
        runs: tally.runs,
        missed: tally.missed,
        skipped: tally.skipped,
        failed: tally.failed,
        elsewhere: tally.elsewhere,
        last: state.last.as_ref().map(|last| {
            let (response, error) = match &last.outcome {
                Outcome::Kept(response) => (Some(response.clone()), None),
                Outcome::Failed { code, message } => {
                    (None, Some(Problem { code: code.clone(), message: message.clone() }))
                }
                Outcome::Done | Outcome::Elsewhere => (None, None),
            };
            LastRun { due: time_text(last.due), ended: time_text(last.ended), response, error }
        }),
    }
}
