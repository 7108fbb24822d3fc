//! Pairs: ours and the references alternate, pairs with a disturbed reference are left out, medians are quoted.
//!
//! ```text
//! pair 1   ours  reference a  reference b
//! pair 2   reference b  reference a  ours     every other pair backwards, so that a drift favours nobody
//! pair 3   ours  reference a  reference b
//! ```
//!
//! Of several references the fastest is the one that counts, by its median. A pair whose reference strays from that
//! median says more about the machine than about us and is left out; others are run for it, within a bound.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::case::Figures;

/// Pairs to keep when nothing is said.
pub(crate) const PAIRS_DEFAULT: usize = 11;
/// Fewer make no median worth quoting.
const PAIRS_MIN: usize = 7;
/// At most so many pairs are run for each that is to be kept.
const PAIRS_RUN_MAX: usize = 2;
/// A reference may be so far from its own median.
const STRAY_MAX: f64 = 0.25;
/// How long one side runs in one pair.
const SLICE: Duration = Duration::from_millis(250);
const SLICE_QUICK: Duration = Duration::from_millis(50);
/// The most rounds of one slice.
const ROUNDS_MAX: u64 = 1 << 30;

/// How many pairs, and how long their sides.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) pairs: usize,
    pub(crate) slice: Duration,
    pub(crate) quick: bool,
}

impl Plan {
    pub(crate) fn new(pairs: usize, quick: bool) -> Self {
        let pairs = if quick { PAIRS_MIN } else { pairs.max(PAIRS_MIN) };
        Self { pairs, slice: if quick { SLICE_QUICK } else { SLICE }, quick }
    }
}

/// One side of a comparison: does so many rounds of its work and says how long they took.
pub(crate) struct Side {
    name: &'static str,
    run: Box<dyn FnMut(u64) -> BoxFuture<'static, Duration> + Send>,
    rounds: u64,
}

impl Side {
    pub(crate) fn new<F, Fut>(name: &'static str, mut run: F) -> Self
    where
        F: FnMut(u64) -> Fut + Send + 'static,
        Fut: Future<Output = Duration> + Send + 'static,
    {
        Self { name, run: Box::new(move |rounds| Box::pin(run(rounds))), rounds: 1 }
    }

    /// Finds how many rounds fill a slice, which warms everything up too.
    async fn calibrate(&mut self, slice: Duration) {
        // The first one waits for what the others have: a table, a connection, who has the keys.
        (self.run)(self.rounds).await;
        loop {
            let took = (self.run)(self.rounds).await;
            let share = took.as_secs_f64() / slice.as_secs_f64();
            if share >= 0.5 || self.rounds >= ROUNDS_MAX {
                self.rounds = ((self.rounds as f64 / share) as u64).clamp(1, ROUNDS_MAX);
                return;
            }
            // Short runs are imprecise: ten times as many rounds at most.
            let factor = (0.7 / share).clamp(2.0, 10.0);
            self.rounds = (self.rounds as f64 * factor) as u64;
        }
    }

    /// Does so many rounds.
    pub(crate) fn run(&mut self, rounds: u64) -> BoxFuture<'static, Duration> {
        (self.run)(rounds)
    }

    /// Rounds a second.
    async fn rate(&mut self) -> f64 {
        let took = (self.run)(self.rounds).await;
        self.rounds as f64 / took.as_secs_f64()
    }
}

/// What one pair measured, in rounds a second.
#[derive(Debug, Clone)]
struct Pair {
    ours: f64,
    references: Vec<f64>,
}

/// Compares `ours` with the fastest of `references`.
pub(crate) async fn compare(plan: &Plan, mut ours: Side, mut references: Vec<Side>) -> Figures {
    for side in std::iter::once(&mut ours).chain(&mut references) {
        side.calibrate(plan.slice).await;
    }
    let mut pairs = Vec::new();
    loop {
        pairs.push(run_pair(&mut ours, &mut references, pairs.len() % 2 == 1).await);
        if pairs.len() < plan.pairs {
            continue;
        }
        let verdict = judge(&pairs);
        let enough = verdict.kept >= plan.pairs;
        if enough || pairs.len() >= plan.pairs * PAIRS_RUN_MAX {
            return figures(&verdict, references[verdict.reference].name, pairs.len(), enough);
        }
    }
}

async fn run_pair(ours: &mut Side, references: &mut [Side], backwards: bool) -> Pair {
    let mut pair = Pair { ours: 0.0, references: vec![0.0; references.len()] };
    if !backwards {
        pair.ours = ours.rate().await;
    }
    let order: Box<dyn Iterator<Item = usize> + Send> =
        if backwards { Box::new((0..references.len()).rev()) } else { Box::new(0..references.len()) };
    for index in order {
        pair.references[index] = references[index].rate().await;
    }
    if backwards {
        pair.ours = ours.rate().await;
    }
    pair
}

fn figures(verdict: &Verdict, reference: &str, run: usize, enough: bool) -> Figures {
    let left_out = run - verdict.kept;
    let spread = format!("{} pairs, ratio {:.2} to {:.2}", verdict.kept, verdict.ratio_low, verdict.ratio_high);
    let note = match (left_out, enough) {
        (0, _) => spread,
        (_, true) => format!("{spread}, {left_out} left out"),
        (_, false) => format!("{spread}, UNSTEADY: {left_out} of {run} left out"),
    };
    Figures {
        ours: verdict.ours,
        reference: reference.to_owned(),
        reference_value: verdict.reference_value,
        ratio: verdict.ratio,
        note,
    }
}

/// What all pairs together say.
#[derive(Debug, PartialEq)]
struct Verdict {
    ours: f64,
    /// Which of the references counts.
    reference: usize,
    reference_value: f64,
    /// The median of the ratios, which is not the ratio of the medians: each pair shares its moment of the machine.
    ratio: f64,
    ratio_low: f64,
    ratio_high: f64,
    kept: usize,
}

fn judge(pairs: &[Pair]) -> Verdict {
    let medians: Vec<f64> =
        (0..pairs[0].references.len()).map(|index| median(pairs.iter().map(|pair| pair.references[index]))).collect();
    let reference =
        (0..medians.len()).max_by(|&a, &b| medians[a].total_cmp(&medians[b])).expect("there is a reference");
    let (low, high) = (medians[reference] * (1.0 - STRAY_MAX), medians[reference] * (1.0 + STRAY_MAX));
    let kept = || pairs.iter().filter(|pair| (low..=high).contains(&pair.references[reference]));
    let ratios = || kept().map(|pair| pair.ours / pair.references[reference]);
    Verdict {
        ours: median(kept().map(|pair| pair.ours)),
        reference,
        reference_value: median(kept().map(|pair| pair.references[reference])),
        ratio: median(ratios()),
        ratio_low: ratios().fold(f64::INFINITY, f64::min),
        ratio_high: ratios().fold(0.0, f64::max),
        kept: kept().count(),
    }
}

/// The value in the middle; of an even number of values the lower of the two there. So it is always one of them, and no
/// value strays from a median of its own.
///
/// # Panics
///
/// When there is no value.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn pair(ours: f64, references: &[f64]) -> Pair {
        Pair { ours, references: references.to_vec() }
    }

    #[test]
    fn a_median_is_in_the_middle_whatever_the_order() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 3.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([7.0].into_iter()), 7.0);
    }

    #[test]
    fn a_pair_whose_reference_strays_is_left_out() {
        let verdict = judge(&[pair(20.0, &[10.0]), pair(22.0, &[11.0]), pair(90.0, &[3.0]), pair(18.0, &[9.0])]);
        assert_eq!(verdict.kept, 3);
        assert_eq!((verdict.ours, verdict.reference_value, verdict.ratio), (20.0, 10.0, 2.0));
        assert_eq!((verdict.ratio_low, verdict.ratio_high), (2.0, 2.0));
    }

    #[test]
    fn something_is_kept_however_far_the_references_are_apart() {
        assert_eq!(judge(&[pair(1.0, &[1.0]), pair(1.0, &[100.0])]).kept, 1);
    }

    #[test]
    fn the_fastest_reference_counts_by_its_median_not_by_its_best() {
        let pairs = [pair(10.0, &[5.0, 4.0]), pair(10.0, &[5.0, 99.0]), pair(10.0, &[5.0, 4.0])];
        let verdict = judge(&pairs);
        assert_eq!((verdict.reference, verdict.ratio, verdict.kept), (0, 2.0, 3));
    }

    #[test]
    fn the_ratio_is_the_median_of_the_pairs_ratios() {
        // The machine is twice as fast in the second pair; both pairs say the same.
        let verdict = judge(&[pair(10.0, &[10.0]), pair(24.0, &[12.0]), pair(8.0, &[8.0])]);
        assert_eq!(verdict.ratio, 1.0);
    }

    /// A side whose rounds take so many microseconds each, by its own word.
    fn side(name: &'static str, micros: u64, calls: &Arc<AtomicU64>) -> Side {
        let calls = Arc::clone(calls);
        Side::new(name, move |rounds| {
            calls.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Duration::from_micros(micros * rounds))
        })
    }

    #[tokio::test]
    async fn twice_as_fast_is_a_ratio_of_two() {
        let calls = Arc::default();
        let plan = Plan::new(7, true);
        let figures = compare(&plan, side("ours", 5, &calls), vec![side("a", 20, &calls), side("b", 10, &calls)]).await;
        assert_eq!(figures.reference, "b");
        assert!((figures.ratio - 2.0).abs() < 1e-6, "{figures:?}");
        assert!(figures.note.starts_with("7 pairs"), "{}", figures.note);
        assert!(calls.load(Ordering::Relaxed) >= 21);
    }

    #[tokio::test]
    async fn an_unsteady_reference_is_said_and_does_not_go_on_for_ever() {
        let calls: Arc<AtomicU64> = Arc::default();
        let counted = Arc::clone(&calls);
        let wild = Side::new("wild", move |rounds| {
            let factor = [1, 10, 100][counted.fetch_add(1, Ordering::Relaxed) as usize % 3];
            std::future::ready(Duration::from_micros(rounds * factor))
        });
        let figures = compare(&Plan::new(7, true), side("ours", 1, &Arc::default()), vec![wild]).await;
        assert!(figures.note.contains("UNSTEADY"), "{}", figures.note);
    }

    #[tokio::test]
    async fn how_long_the_first_round_takes_says_nothing_of_the_others() {
        let mut cold = true;
        let mut side = Side::new("cold", move |rounds| {
            let first = if std::mem::take(&mut cold) { Duration::from_secs(1) } else { Duration::ZERO };
            std::future::ready(first + Duration::from_micros(rounds))
        });
        side.calibrate(Duration::from_millis(100)).await;
        assert!((99_000..=101_000).contains(&side.rounds), "{}", side.rounds);
    }

    #[test]
    fn there_are_never_fewer_than_seven_pairs() {
        assert_eq!(Plan::new(3, false).pairs, PAIRS_MIN);
        assert_eq!(Plan::new(9, false).pairs, 9);
    }
}
