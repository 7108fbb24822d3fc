//! The entries and when each is due next. Pure: what time it is comes in with every call, and so does the seed of chance.
//!
//! Entries stand in numbered slots. Two ordered sets, one a clock, hold (when, slot) of all that wait; so the next one due is
//! the first of its set, and any entry leaves its set in logarithmic time, in whatever order entries come and go.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::{FINISHED_MAX, LATE_MAX};
use crate::plan::{Clock, Now, Plan};
use crate::{Entry, Missed, Overlap};

const LATE: i64 = LATE_MAX.as_micros() as i64;

/// All entries of a scheduler.
#[derive(Debug)]
pub(crate) struct Schedule {
    slots: Vec<Option<State>>,
    free: Vec<u32>,
    ids: BTreeMap<Arc<str>, u32>,
    wall: BTreeSet<(i64, u32)>,
    steady: BTreeSet<(i64, u32)>,
    /// Those that had their last run and are kept for its result, oldest first.
    finished: VecDeque<(u32, u64)>,
    most: usize,
    /// Tells an entry from another that had its slot before it.
    generations: u64,
    dice: fastrand::Rng,
}

/// An entry and how it is doing.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) id: Arc<str>,
    pub(crate) entry: Arc<Entry>,
    plan: Plan,
    generation: u64,
    /// Its next due time by its clock, and where it stands in the set of those that wait, unless it is paused.
    due: Option<Due>,
    pub(crate) tally: Tally,
    pub(crate) last: Option<Box<Last>>,
    running: u32,
    queued: Option<Box<Run>>,
    /// Missed runs up to this time were looked at, and are made up for.
    made_up_until: i64,
}

#[derive(Debug, Clone, Copy)]
struct Due {
    /// When it is due.
    time: i64,
    /// When it is sent: later by chance, if it has a jitter.
    at: i64,
}

/// How an entry is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) paused: bool,
    pub(crate) finished: bool,
    /// Put there by the program, and not by an event.
    pub(crate) built_in: bool,
    /// Runs that were begun when due.
    pub(crate) runs: u64,
    pub(crate) missed: u64,
    pub(crate) skipped: u64,
    pub(crate) failed: u64,
    pub(crate) elsewhere: u64,
    /// The last due time that is done with, by the system's clock.
    pub(crate) last_due: Option<i64>,
}

/// How the last run that ended did so.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Last {
    pub(crate) due: i64,
    pub(crate) ended: i64,
    pub(crate) outcome: Outcome,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// It was sent, and its response, if it has one, is where it was to be.
    Done,
    /// The response, to be kept.
    Kept(crate::Payload),
    /// Another scheduler had claimed it.
    Elsewhere,
    Failed {
        code: String,
        message: String,
    },
}

/// A run to be sent now.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) slot: u32,
    pub(crate) generation: u64,
    pub(crate) id: Arc<str>,
    pub(crate) entry: Arc<Entry>,
    /// When it was due, by the system's clock.
    pub(crate) due: i64,
    /// Sent because somebody asked for it, and not because it is due.
    pub(crate) asked: bool,
}

/// What an entry was before, to go on from.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Before {
    pub(crate) tally: Tally,
    /// Its next due time, by the system's clock.
    pub(crate) due: Option<i64>,
}

/// Why an entry was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There are as many as may be.
    Full,
    /// It has no due time that is still to come.
    Never,
}

/// What came of asking for a run.
#[derive(Debug)]
pub(crate) enum Begun {
    Run(Run),
    Queued,
    Skipped,
}

impl Schedule {
    pub(crate) fn new(most: usize, seed: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            ids: BTreeMap::new(),
            wall: BTreeSet::new(),
            steady: BTreeSet::new(),
            finished: VecDeque::new(),
            most,
            generations: 0,
            dice: fastrand::Rng::with_seed(seed),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn get(&self, id: &str) -> Option<&State> {
        self.ids.get(id).and_then(|&slot| self.state(slot))
    }

    /// The entries after this id whose ids begin with `prefix`, in the order of their ids.
    pub(crate) fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> impl Iterator<Item = &'a State> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let ids = self.ids.range::<str, _>((from, Bound::Unbounded));
        ids.take_while(move |(id, _)| id.starts_with(prefix)).filter_map(|(_, &slot)| self.state(slot))
    }

    fn state(&self, slot: u32) -> Option<&State> {
        self.slots.get(slot as usize)?.as_ref()
    }

    fn state_mut(&mut self, slot: u32) -> Option<&mut State> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    // ---- coming and going ------------------------------------------------------------------------------------------

    /// Adds an entry, in the place of one of the same id; whether there was one. One that is refused changes nothing.
    pub(crate) fn add(
        &mut self,
        id: &str,
        entry: Arc<Entry>,
        plan: Plan,
        before: Option<Before>,
        now: Now,
    ) -> Result<bool, Refused> {
        let (tally, time) = match before {
            Some(before) => (before.tally, before.due.map(|due| go_on(&plan, due, now))),
            None => (Tally::default(), plan.first(now)),
        };
        if time.is_none() && !tally.finished {
            return Err(Refused::Never);
        }
        let known = self.ids.contains_key(id);
        if !known && self.ids.len() >= self.most {
            return Err(Refused::Full);
        }
        if known {
            self.cancel(id);
        }
        let id: Arc<str> = id.into();
        self.generations += 1;
        let state = State {
            id: Arc::clone(&id),
            entry,
            plan,
            generation: self.generations,
            due: None,
            tally,
            last: None,
            running: 0,
            queued: None,
            made_up_until: i64::MIN,
        };
        let slot = self.place(state);
        self.ids.insert(id, slot);
        if tally.finished {
            self.finished.push_back((slot, self.generations));
        } else {
            self.wait_until(slot, time);
        }
        Ok(known)
    }

    fn place(&mut self, state: State) -> u32 {
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(state);
                slot
            }
            None => {
                self.slots.push(Some(state));
                // No more than ENTRIES_MAX.
                (self.slots.len() - 1) as u32
            }
        }
    }

    /// Takes an entry out; whether it was there. What it has sent goes on.
    pub(crate) fn cancel(&mut self, id: &str) -> bool {
        let Some((_, slot)) = self.ids.remove_entry(id) else { return false };
        self.leave_the_wait(slot);
        self.slots[slot as usize] = None;
        self.free.push(slot);
        true
    }

    /// Stops sending an entry when it is due; whether it is there.
    pub(crate) fn pause(&mut self, id: &str) -> bool {
        let Some(&slot) = self.ids.get(id) else { return false };
        self.leave_the_wait(slot);
        if let Some(state) = self.state_mut(slot) {
            state.tally.paused = true;
        }
        true
    }

    /// Goes on with an entry that was paused; whether it is there. What was due meanwhile is not missed, except that of what is
    /// sent only once.
    pub(crate) fn resume(&mut self, id: &str, now: Now) -> bool {
        let Some(&slot) = self.ids.get(id) else { return false };
        let Some(state) = self.state_mut(slot) else { return false };
        if !std::mem::replace(&mut state.tally.paused, false) || state.tally.finished {
            return true;
        }
        let mut time = state.due.map(|due| due.time);
        let (plan, instant) = (&state.plan, now.of(state.plan.clock()));
        if let Some(due) = time.filter(|due| *due <= instant)
            && plan.following(due, now).is_some()
        {
            let (passed, _) = plan.due_until(due, instant, 1, now);
            time = plan.following(passed.last().copied().unwrap_or(due), now);
        }
        self.wait_until(slot, time);
        true
    }

    /// Has an entry wait for this due time; without one it has had its last run.
    fn wait_until(&mut self, slot: u32, time: Option<i64>) {
        let Some(state) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let counted_out = state.plan.count.is_some_and(|count| state.tally.runs >= count);
        let Some(time) = time.filter(|_| !counted_out) else {
            state.due = None;
            state.tally.finished = true;
            return self.finish(slot);
        };
        let jitter = if state.plan.jitter == 0 { 0 } else { self.dice.i64(0..=state.plan.jitter) };
        let due = Due { time, at: time.saturating_add(jitter) };
        state.due = Some(due);
        if !state.tally.paused {
            match state.plan.clock() {
                Clock::Wall => self.wall.insert((due.at, slot)),
                Clock::Steady => self.steady.insert((due.at, slot)),
            };
        }
    }

    fn leave_the_wait(&mut self, slot: u32) {
        if let Some(State { due: Some(due), plan, .. }) = self.slots.get(slot as usize).and_then(Option::as_ref) {
            let key = (due.at, slot);
            match plan.clock() {
                Clock::Wall => self.wall.remove(&key),
                Clock::Steady => self.steady.remove(&key),
            };
        }
    }

    /// Lets an entry go that has nothing left to do; one with a result to show is kept for a while.
    fn finish(&mut self, slot: u32) {
        let Some(state) = self.state(slot) else { return };
        if !state.tally.finished || state.running > 0 || state.queued.is_some() {
            return;
        }
        if state.tally.built_in && state.plan.count.is_some() {
            // Or the program's next start would count anew.
            return;
        }
        let (id, generation) = (Arc::clone(&state.id), state.generation);
        if !state.keeps_result() {
            self.cancel(&id);
            return;
        }
        self.finished.push_back((slot, generation));
        while self.finished.len() > FINISHED_MAX {
            let Some((slot, generation)) = self.finished.pop_front() else { break };
            if let Some(id) = self.state(slot).filter(|it| it.generation == generation).map(|it| Arc::clone(&it.id)) {
                self.cancel(&id);
            }
        }
    }

    // ---- time ------------------------------------------------------------------------------------------------------

    /// In how many microseconds something is due, if anything is.
    pub(crate) fn wait(&self, now: Now) -> Option<i64> {
        let of = |set: &BTreeSet<(i64, u32)>, now: i64| set.first().map(|(at, _)| at.saturating_sub(now).max(0));
        let waits = of(&self.wall, now.wall).into_iter().chain(of(&self.steady, now.steady));
        waits.min()
    }

    /// Whether something goes by the system's clock, which may be set at any time.
    pub(crate) fn minds_the_wall(&self) -> bool {
        !self.wall.is_empty()
    }

    /// The next entry that is due, with the run to be sent for it, if one is. Whoever calls this goes on until there is none.
    pub(crate) fn pop(&mut self, now: Now) -> Option<(Arc<str>, Option<Run>)> {
        let first = |set: &BTreeSet<(i64, u32)>, now: i64| set.first().copied().filter(|(at, _)| *at <= now);
        let (wall, steady) = (first(&self.wall, now.wall), first(&self.steady, now.steady));
        // The one that is later goes first.
        let slot = match (wall, steady) {
            (Some((wall, slot)), Some((steady, other))) => {
                if now.wall - wall >= now.steady - steady {
                    slot
                } else {
                    other
                }
            }
            (Some((_, slot)), None) | (None, Some((_, slot))) => slot,
            (None, None) => return None,
        };
        self.leave_the_wait(slot);
        let state = self.state_mut(slot)?;
        let id = Arc::clone(&state.id);
        let (chosen, next) = state.choose(now)?;
        let run = chosen.and_then(|due| {
            let due = now.wall_at(state.plan.clock(), due);
            match state.begin(slot, due, false) {
                Begun::Run(run) => Some(run),
                Begun::Queued => None,
                Begun::Skipped => {
                    state.tally.skipped += 1;
                    None
                }
            }
        });
        self.wait_until(slot, next);
        Some((id, run))
    }

    /// Has an entry run now, whether it is due or not; `None` when it is not there.
    pub(crate) fn run_now(&mut self, id: &str, now: Now) -> Option<Begun> {
        let &slot = self.ids.get(id)?;
        Some(self.state_mut(slot)?.begin(slot, now.wall, true))
    }

    /// A run has ended; the next one, if one has waited for it.
    pub(crate) fn ended(&mut self, slot: u32, generation: u64, due: i64, outcome: Outcome, now: Now) -> Option<Run> {
        let state = self.state_mut(slot).filter(|state| state.generation == generation)?;
        state.running = state.running.saturating_sub(1);
        match outcome {
            Outcome::Failed { .. } => state.tally.failed += 1,
            Outcome::Elsewhere => state.tally.elsewhere += 1,
            Outcome::Done | Outcome::Kept(_) => {}
        }
        // A notification that went well leaves nothing worth remembering.
        if outcome != Outcome::Done || state.last.is_some() {
            state.last = Some(Box::new(Last { due, ended: now.wall, outcome }));
        }
        let next = state.queued.take().map(|run| *run);
        if next.is_some() {
            state.running += 1;
        }
        if next.is_none() {
            self.finish(slot);
        }
        next
    }
}

impl State {
    /// Which of the due times up to now is to be sent, and the due time to wait for.
    fn choose(&mut self, now: Now) -> Option<(Option<i64>, Option<i64>)> {
        let due = self.due.take()?;
        let clock = self.plan.clock();
        let until = now.of(clock).saturating_sub(due.at - due.time);
        if due.time <= self.made_up_until {
            let next = self.plan.following(due.time, now);
            self.done_with(due.time, now);
            return Some((Some(due.time), next));
        }
        let keep = match self.plan.missed {
            Missed::All(most) => most as usize,
            Missed::Skip | Missed::Once => 1,
        };
        let (kept, count) = self.plan.due_until(due.time, until, keep, now);
        let newest = kept.last().copied().unwrap_or(due.time);
        let chosen = match self.plan.missed {
            Missed::Skip if until.saturating_sub(newest) > LATE => None,
            Missed::Skip | Missed::Once => Some(newest),
            Missed::All(_) => kept.first().copied(),
        };
        let gone = match (self.plan.missed, chosen) {
            (Missed::All(_), _) => count - kept.len() as u64,
            (_, Some(_)) => count - 1,
            (_, None) => count,
        };
        self.tally.missed += gone;
        if let (Missed::All(_), true) = (self.plan.missed, kept.len() > 1) {
            self.made_up_until = newest;
        }
        let from = match self.plan.missed {
            Missed::All(_) => chosen.unwrap_or(newest),
            _ => newest,
        };
        self.done_with(from, now);
        Some((chosen, self.plan.following(from, now)))
    }

    fn done_with(&mut self, due: i64, now: Now) {
        self.tally.last_due = Some(now.wall_at(self.plan.clock(), due));
    }

    /// Begins a run, unless others that are still running are in its way.
    fn begin(&mut self, slot: u32, due: i64, asked: bool) -> Begun {
        let (id, entry) = (Arc::clone(&self.id), Arc::clone(&self.entry));
        let run = Run { slot, generation: self.generation, id, entry, due, asked };
        let most = match self.plan.overlap {
            Overlap::Skip | Overlap::Queue => 1,
            Overlap::Beside(most) => most,
        };
        let begun = if self.running < most {
            self.running += 1;
            Begun::Run(run)
        } else if self.plan.overlap == Overlap::Queue && self.queued.is_none() {
            self.queued = Some(Box::new(run));
            Begun::Queued
        } else {
            return Begun::Skipped;
        };
        self.tally.runs += u64::from(!asked);
        begun
    }

    /// The next due time by the system's clock; of one that is paused, that at which it was.
    pub(crate) fn next_due(&self, now: Now) -> Option<i64> {
        self.due.map(|due| now.wall_at(self.plan.clock(), due.time))
    }

    /// How many of its runs have not ended.
    pub(crate) fn running(&self) -> u32 {
        self.running
    }

    fn keeps_result(&self) -> bool {
        self.last.as_ref().is_some_and(|last| matches!(last.outcome, Outcome::Kept(_) | Outcome::Failed { .. }))
    }
}

/// When an entry is due by its own clock that was due then by the system's. What goes by the steady clock is never further away
/// than it could have been, even when the system's clock was set back meanwhile.
fn go_on(plan: &Plan, due: i64, now: Now) -> i64 {
    use crate::plan::Timing;
    let longest = match plan.timing {
        Timing::After(delay) => delay,
        Timing::Every(interval) if plan.start.is_none_or(|start| start <= now.wall) => interval,
        Timing::Every(_) => i64::MAX,
        Timing::At(_) | Timing::Aligned(_) | Timing::Cron(..) => return due,
    };
    now.steady.saturating_add(due.saturating_sub(now.wall).min(longest))
}

#[cfg(test)]
mod tests;
