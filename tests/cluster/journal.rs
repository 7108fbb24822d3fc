//! What nodes wrote down, and what must be true of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use edri_tests::cluster::INBOX;

use super::harness::SWITCH;

/// A node, and which life of it.
pub(crate) type Life = (String, u64);

/// As much is lost with a killed node: what was in its inbox, what the node had taken and not put there yet, and what was in
/// the worker's hands.
pub(crate) const LOST_MAX: usize = 2 * INBOX + 2;

/// What one life of a node wrote down.
pub(crate) struct Journal {
    pub(crate) life: Life,
    path: PathBuf,
    read: u64,
    rest: String,
    /// Numbers, with how many groups each was for.
    pub(crate) published: Vec<(u64, u64)>,
    pub(crate) refused: Vec<String>,
    /// By who told it: the numbers in the order they were handled, and whether they were marked.
    pub(crate) told: HashMap<Life, Vec<(u64, bool)>>,
    pub(crate) answered: HashMap<Life, Vec<u64>>,
    pub(crate) asked: BTreeMap<u64, String>,
    pub(crate) ended: BTreeMap<u64, String>,
}

impl Journal {
    pub(crate) fn new(life: Life, path: PathBuf) -> Self {
        Self {
            life,
            path,
            read: 0,
            rest: String::new(),
            published: Vec::new(),
            refused: Vec::new(),
            told: HashMap::new(),
            answered: HashMap::new(),
            asked: BTreeMap::new(),
            ended: BTreeMap::new(),
        }
    }

    /// Reads what was written since the last time.
    pub(crate) fn read(&mut self) {
        let Ok(mut file) = File::open(&self.path) else { return };
        file.seek(SeekFrom::Start(self.read)).expect("the journal is a file");
        let mut text = std::mem::take(&mut self.rest);
        self.read += file.read_to_string(&mut text).expect("the journal is text") as u64;
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        self.rest = text.split_off(whole);
        text.lines().for_each(|line| self.line(line));
    }

    fn line(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("`{line}` is no line of a journal"));
        match words.as_slice() {
            ["published", n, deliveries] => self.published.push((number(n), number(deliveries))),
            ["refused", ..] => self.refused.push(line.to_owned()),
            ["told", origin, life, n, redelivered] => {
                let told = self.told.entry(((*origin).to_owned(), number(life))).or_default();
                told.push((number(n), *redelivered == "1"));
            }
            ["answered", origin, life, n] => {
                self.answered.entry(((*origin).to_owned(), number(life))).or_default().push(number(n));
            }
            ["asked", n, node] => drop(self.asked.insert(number(n), (*node).to_owned())),
            ["ended", n, outcome] => drop(self.ended.insert(number(n), (*outcome).to_owned())),
            _ => panic!("`{line}` is no line of a journal"),
        }
    }

    /// The highest number that this life has handled of those of that one.
    pub(crate) fn last_of(&self, origin: &Life) -> Option<u64> {
        self.told.get(origin)?.iter().map(|(number, _)| *number).max()
    }
}

/// What was counted in all.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) published: usize,
    pub(crate) handled: usize,
    /// Handled again by a later life, and marked so.
    pub(crate) redelivered: usize,
    /// Confirmed by a node that was killed before it had handled them.
    pub(crate) lost_with_killed: usize,
    /// How requests ended.
    pub(crate) requests: BTreeMap<String, usize>,
}

/// Counts, and says everything that is wrong. `killed` are the lives that were; those who live must have everything.
pub(crate) fn count(journals: &[Journal], killed: &HashSet<Life>) -> (Counts, Vec<String>) {
    let (mut counts, mut wrong) = (Counts::default(), Vec::new());
    let names = journals.iter().map(|journal| journal.life.0.as_str());
    let receivers: BTreeSet<&str> = names.filter(|name| *name != SWITCH).collect();
    for origin in journals.iter().filter(|journal| journal.life.0 != SWITCH) {
        counts.published += origin.published.len();
        wrong.extend(origin.refused.iter().map(|line| format!("{:?}: {line}", origin.life)));
        for receiver in receivers.iter().filter(|receiver| **receiver != origin.life.0) {
            let lives: Vec<_> = journals.iter().filter(|journal| journal.life.0 == **receiver).collect();
            count_pair(origin, &lives, killed, &mut counts, &mut wrong);
        }
        count_requests(origin, journals, killed, &mut counts, &mut wrong);
    }
    (counts, wrong)
}

/// From one life of a node to all lives of another, in their order.
fn count_pair(
    origin: &Journal,
    lives: &[&Journal],
    killed: &HashSet<Life>,
    counts: &mut Counts,
    wrong: &mut Vec<String>,
) {
    let mut seen = HashSet::new();
    let mut deaths = 0;
    for receiver in lives {
        let pair = format!("{:?} to {:?}", origin.life, receiver.life);
        let mut last: Option<(u64, bool)> = None;
        for &(number, marked) in receiver.told.get(&origin.life).map_or(&[][..], Vec::as_slice) {
            counts.handled += 1;
            if marked && deaths == 0 {
                wrong.push(format!("{pair}: {number} is marked although nobody has died"));
            }
            if !seen.insert(number) {
                counts.redelivered += 1;
                if !marked {
                    wrong.push(format!("{pair}: {number} again, and not marked"));
                }
            }
            match last {
                Some((last, _)) if last >= number => wrong.push(format!("{pair}: {number} after {last}")),
                // Only what is sent again may have gaps: what the killed life had confirmed is not sent again.
                Some((last, false)) if last + 1 < number => wrong.push(format!("{pair}: {number} right after {last}")),
                _ => {}
            }
            last = Some((number, marked));
        }
        deaths += usize::from(killed.contains(&receiver.life));
    }
    let pair = format!("{:?} to {}", origin.life, lives.first().map_or("nobody", |life| &life.life.0));
    let end = seen.iter().max().map_or(0, |max| max + 1);
    let missing = (0..end).filter(|number| !seen.contains(number)).count();
    counts.lost_with_killed += missing;
    if missing > LOST_MAX * deaths {
        wrong.push(format!("{pair}: {missing} are missing below {end}, after {deaths} deaths"));
    }
    let sent = origin.published.last().map_or(0, |(number, _)| number + 1);
    if !killed.contains(&origin.life) && sent != end {
        wrong.push(format!("{pair}: {sent} were published, {end} have come"));
    }
}

fn count_requests(
    origin: &Journal,
    journals: &[Journal],
    killed: &HashSet<Life>,
    counts: &mut Counts,
    wrong: &mut Vec<String>,
) {
    let mut answered = HashSet::new();
    for receiver in journals {
        for number in receiver.answered.get(&origin.life).map_or(&[][..], Vec::as_slice) {
            if !answered.insert(*number) {
                wrong.push(format!("{:?}: request {number} was handled twice", origin.life));
            }
        }
    }
    for (number, outcome) in &origin.ended {
        *counts.requests.entry(outcome.clone()).or_default() += 1;
        if outcome == "wrong" || (outcome == "ok" && !answered.contains(number)) {
            wrong.push(format!("{:?}: request {number} ended with {outcome}, which nobody answered", origin.life));
        }
    }
    let open = origin.asked.keys().filter(|number| !origin.ended.contains_key(number)).count();
    if open > 0 && !killed.contains(&origin.life) {
        wrong.push(format!("{:?}: {open} requests have not ended", origin.life));
    }
}
