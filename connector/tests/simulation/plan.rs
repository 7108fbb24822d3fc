//! What goes wrong in a run: all of it follows from the seed.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::dice::Dice;

/// What goes wrong in a run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    /// Pairs of nodes; the same pair twice has two links.
    pub(crate) edges: Vec<(usize, usize)>,
    /// Nodes without groups.
    pub(crate) switches: BTreeSet<usize>,
    /// Of a thousand messages on a link, so many are lost, repeated; and how long one may take.
    pub(crate) loss: u64,
    pub(crate) repeat: u64,
    pub(crate) delay_ms: u64,
    /// Whether messages of one link may overtake one another; otherwise it is as a QUIC stream.
    pub(crate) reorder: bool,
    /// Of a thousand moments, how many see an edge cut or mended.
    pub(crate) cuts: u64,
    /// Of a thousand moments, how many see nodes killed or started.
    pub(crate) kills: u64,
    /// Whether nodes with groups are killed too, not only switches.
    pub(crate) kill_hosts: bool,
    /// Of a thousand new lives, so many have not all the groups that the one before had.
    pub(crate) fewer: u64,
    /// Of a thousand moments, how many see a group replaced by one of the same name.
    pub(crate) replacements: u64,
    /// What each group grants an origin to begin with.
    pub(crate) window_events: u32,
    pub(crate) window_bytes: u64,
    /// How long each node's patience with the others is.
    pub(crate) expiry: Vec<Duration>,
    /// How long it takes at most until an end notices that its link is dead.
    pub(crate) notice_ms: u64,
    pub(crate) faulty: Duration,
    /// The last node goes for good.
    pub(crate) farewell: Option<Farewell>,
    /// Nodes that run a keyed shared manager to begin with; nothing if there is no such manager.
    pub(crate) clerks: Option<BTreeSet<usize>>,
    /// Of a thousand moments, how many see a node begin or end to run it.
    pub(crate) clerk_changes: u64,
    /// Whether what a life's groups grant differs from life to life.
    pub(crate) uneven: bool,
    /// Nodes that send others nothing of their own accord.
    pub(crate) mute: BTreeSet<usize>,
    /// Whether it is listened to what is said once all is at rest.
    pub(crate) listens: bool,
}

/// How a node goes for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// It dies.
    Dies,
    /// It withdraws its groups, takes and sends what is under way, and says so.
    Leaves,
}

impl Plan {
    /// The plan of a seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let nodes = dice.between(2, 7) as usize;
        let edges = edges(nodes, &mut dice);
        let mut switches = BTreeSet::new();
        if nodes > 2 && dice.chance(700) {
            switches.insert(0);
        }
        if nodes > 4 && dice.chance(400) {
            switches.insert(1);
        }
        let lossy = dice.chance(250);
        let faults = |dice: &mut Dice, of_thousand, below| if dice.chance(of_thousand) { dice.below(below) } else { 0 };
        let tiny = dice.chance(150);
        let impatient = dice.chance(200);
        let expiry = (0..nodes).map(|_| match impatient {
            true => dice.ms(1_000, 8_000),
            false => Duration::from_secs(25),
        });
        let expiry = expiry.collect();
        let farewell = match dice.below(8) {
            0 if nodes > 2 => Some(Farewell::Dies),
            1 | 2 if nodes > 2 => Some(Farewell::Leaves),
            _ => None,
        };
        // Thrown by themselves, so that the rest of a plan is what it was before there were these.
        let mut more = Dice::new(seed ^ 0x6b65_7973);
        let clerks =
            more.chance(400).then(|| (0..nodes).filter(|node| !switches.contains(node) && more.chance(700)).collect());
        let clerk_changes = faults(&mut more, 500, 30);
        let mut plan = Self {
            clerks,
            clerk_changes,
            mute: (0..nodes).filter(|_| more.chance(100)).collect(),
            listens: more.chance(250),
            uneven: more.chance(300),
            seed,
            nodes,
            edges,
            switches,
            loss: if lossy { dice.below(300) } else { 0 },
            repeat: if lossy { dice.below(300) } else { 0 },
            delay_ms: if lossy { dice.between(1, 400) } else { dice.between(1, 80) },
            reorder: lossy,
            cuts: faults(&mut dice, 650, 60),
            kills: faults(&mut dice, 500, 25),
            kill_hosts: dice.chance(700),
            fewer: faults(&mut dice, 400, 600),
            replacements: faults(&mut dice, 200, 20),
            window_events: if tiny { 1 } else { dice.between(8, 48) as u32 },
            window_bytes: if tiny { 1 } else { 4096 },
            expiry,
            notice_ms: [10, 500, 3000][dice.below(3) as usize],
            faulty: dice.ms(2_500, 8_000),
            farewell,
        };
        if more.chance(150) {
            // So often that what is said of it crosses on the way.
            plan.clerk_changes = 300;
        }
        plan
    }

    /// Whether something may be lost: a node with groups ends, or is given up.
    pub(crate) fn may_lose(&self) -> bool {
        self.kills > 0 && self.kill_hosts
            || self.farewell == Some(Farewell::Dies)
            || self.expiry.iter().any(|expiry| *expiry < self.faulty + Duration::from_secs(8))
    }

    /// Whether everybody hears soon what a node says.
    pub(crate) fn is_prompt(&self) -> bool {
        self.cuts + self.kills == 0 && !self.reorder && self.delay_ms * (self.nodes as u64) < 300
    }

    /// Whether nothing goes wrong at all.
    pub(crate) fn is_quiet(&self) -> bool {
        self.cuts + self.kills + self.loss + self.repeat + self.replacements + self.clerk_changes == 0
            && self.farewell.is_none()
    }
}

/// A star, a ring, a chain, or anything that hangs together; without the last node it still does.
fn edges(nodes: usize, dice: &mut Dice) -> Vec<(usize, usize)> {
    let mut edges: Vec<(usize, usize)> = Vec::new();
    match dice.below(4) {
        0 => edges.extend((1..nodes).map(|node| (0, node))),
        1 => {
            edges.extend((1..nodes).map(|node| (node - 1, node)));
            if nodes > 2 {
                edges.push((0, nodes - 1));
            }
        }
        2 => edges.extend((1..nodes).map(|node| (node - 1, node))),
        _ => {
            edges.extend((1..nodes).map(|node| (dice.below(node as u64) as usize, node)));
            for _ in 0..dice.below(nodes as u64) {
                let (a, b) = (dice.below(nodes as u64) as usize, dice.below(nodes as u64) as usize);
                if a != b {
                    edges.push((a.min(b), a.max(b)));
                }
            }
        }
    }
    if dice.chance(150) {
        edges.push(edges[dice.below(edges.len() as u64) as usize]);
    }
    edges
}
