//! The law of Gutenberg and Richter: of magnitude M or more there are N quakes, where log10 N = a − b M.
//!
//! Everything is worked out from counts in bins of 0.1, so memory does not grow with the number of quakes. Pure: no
//! clock, and the same seed gives the same result.
//!
//! - Below the *magnitude of completeness* networks miss quakes. It is taken from the fullest bin (maximum curvature:
//!   Wiemer & Wyss, Bull. Seism. Soc. Am. 90, 2000), 0.2 higher because that is known to be too low (Woessner &
//!   Wiemer, BSSA 95, 2005).
//! - b is Aki's maximum likelihood estimate (Bull. Earthq. Res. Inst. 43, 1965), corrected for the width of the bins
//!   (Utsu 1966); its standard error is that of Shi & Bolt (BSSA 72, 1982).
//! - Neither error knows that the completeness is an estimate too. The bootstrap (Efron 1979) does: it fits catalogues
//!   drawn from this one with replacement, each from its completeness on.

use std::collections::BTreeMap;
use std::f64::consts::{LN_10, LOG10_E};

use edri::data;

/// The bins between the fullest and the completeness.
const CORRECTION: i16 = 2;
/// With fewer quakes than this there is nothing to fit.
const COUNT_MIN: u64 = 50;
/// How many catalogues the bootstrap draws.
const REPLICATES: usize = 1000;
/// The most quakes in each. Of a larger catalogue fewer are drawn than it has, and the spread is scaled ("m out of n",
/// Bickel, Götze & van Zwet 1997), so a load test does not wait for its statistics.
const DRAWS_MAX: u64 = 20_000;

/// Counts of magnitudes in bins of 0.1, each named by its middle in tenths.
#[data]
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Histogram {
    bins: BTreeMap<i16, u64>,
}

impl Histogram {
    pub(crate) fn add(&mut self, magnitude: f64) {
        *self.bins.entry((magnitude * 10.0).round() as i16).or_default() += 1;
    }

    /// The bins from the lowest to the highest that is not empty, in tenths, with their counts.
    pub(crate) fn bins(&self) -> impl Iterator<Item = (i16, u64)> {
        self.bins.iter().map(|(&tenths, &count)| (tenths, count))
    }

    pub(crate) fn total(&self) -> u64 {
        self.bins.values().sum()
    }
}

/// The law as fitted to a catalogue.
#[data]
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GutenbergRichter {
    pub(crate) a: f64,
    pub(crate) b: f64,
    /// The standard error of `b`, were the completeness exact.
    pub(crate) b_error: f64,
    /// Where 95 of 100 bootstrapped `b` lie.
    pub(crate) b_interval: (f64, f64),
    /// The magnitude of completeness.
    pub(crate) mc: f64,
    /// How many quakes are as large.
    pub(crate) count: u64,
}

/// Fits the law; `None` when too few quakes reach the completeness.
pub(crate) fn fit(histogram: &Histogram, seed: u64) -> Option<GutenbergRichter> {
    let bins: Vec<_> = histogram.bins().collect();
    let fit = Fit::of(&bins).filter(|fit| fit.count >= COUNT_MIN)?;
    let b_interval = bootstrap(&bins, fit.b(), seed);
    Some(GutenbergRichter { a: fit.a(), b: fit.b(), b_error: fit.error(), b_interval, mc: fit.mc, count: fit.count })
}

/// The complete part of a catalogue.
struct Fit {
    mc: f64,
    count: u64,
    mean: f64,
    variance: f64,
}

impl Fit {
    fn of(bins: &[(i16, u64)]) -> Option<Self> {
        // Of bins equally full, the lowest.
        let (fullest, _) = bins.iter().rev().max_by_key(|(_, count)| count)?;
        let completeness = fullest + CORRECTION;
        let complete = || {
            let bins = bins.iter().filter(move |(tenths, _)| *tenths >= completeness);
            bins.map(|&(tenths, count)| (f64::from(tenths) / 10.0, count as f64))
        };
        let count: f64 = complete().map(|(_, count)| count).sum();
        if count < 2.0 {
            return None;
        }
        let mean = complete().map(|(magnitude, count)| magnitude * count).sum::<f64>() / count;
        let squares: f64 = complete().map(|(magnitude, count)| count * (magnitude - mean).powi(2)).sum();
        let mc = f64::from(completeness) / 10.0;
        Some(Self { mc, count: count as u64, mean, variance: squares / (count - 1.0) })
    }

    fn b(&self) -> f64 {
        LOG10_E / (self.mean - (self.mc - 0.05))
    }

    fn a(&self) -> f64 {
        (self.count as f64).log10() + self.b() * self.mc
    }

    fn error(&self) -> f64 {
        LN_10 * self.b().powi(2) * (self.variance / self.count as f64).sqrt()
    }
}

/// The interval around `b` in which 95 of 100 redrawn catalogues have theirs.
fn bootstrap(bins: &[(i16, u64)], b: f64, seed: u64) -> (f64, f64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut sum = 0;
    let cumulative: Vec<u64> = bins
        .iter()
        .map(|(_, count)| {
            sum += count;
            sum
        })
        .collect();
    let draws = sum.min(DRAWS_MAX);
    let mut drawn = bins.to_vec();
    let mut replicates: Vec<f64> = (0..REPLICATES)
        .filter_map(|_| {
            drawn.iter_mut().for_each(|(_, count)| *count = 0);
            for _ in 0..draws {
                let quake = random.u64(..sum);
                drawn[cumulative.partition_point(|&below| below <= quake)].1 += 1;
            }
            Fit::of(&drawn).map(|fit| fit.b())
        })
        .collect();
    replicates.sort_by(f64::total_cmp);
    let scale = (draws as f64 / sum as f64).sqrt();
    let quantile = |per_mille: usize| {
        let at = replicates.len().saturating_sub(1) * per_mille / 1000;
        replicates.get(at).map_or(b, |replicate| b + (replicate - b) * scale)
    };
    (quantile(25), quantile(975))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(bins: &[(i16, u64)]) -> Histogram {
        Histogram { bins: bins.iter().copied().collect() }
    }

    /// A catalogue that follows the law with this `b`, complete from 1.0 on.
    fn lawful(b: f64) -> Histogram {
        let mut random = fastrand::Rng::with_seed(1);
        let mut histogram = histogram(&[(8, 500_000)]);
        for _ in 0..100_000 {
            histogram.add(0.95 - (1.0 - random.f64()).log10() / b);
        }
        histogram
    }

    #[test]
    fn magnitudes_are_counted_in_the_nearest_bin() {
        let mut histogram = Histogram::default();
        for magnitude in [-0.07, -0.8, 0.04, 1.25, 1.3, 6.4] {
            histogram.add(magnitude);
        }
        let expect = [(-8, 1), (-1, 1), (0, 1), (13, 2), (64, 1)];
        assert_eq!(histogram.bins().collect::<Vec<_>>(), expect);
        assert_eq!(histogram.total(), 6);
    }

    #[test]
    fn a_small_catalogue_is_fitted_as_on_paper() {
        // Fullest at 1.0, so complete from 1.2: 40 of 1.2, 20 of 1.3, 10 of 1.4. Their mean is 88/70, the squares about it
        // sum up to 2 × 17/70.
        let fit = fit(&histogram(&[(10, 60), (12, 40), (13, 20), (14, 10)]), 1).unwrap();
        let b = LOG10_E / (88.0 / 70.0 - 1.15);
        assert_eq!((fit.mc, fit.count), (1.2, 70));
        assert!((fit.b - b).abs() < 1e-12, "{fit:?}");
        assert!((fit.a - (70_f64.log10() + 1.2 * b)).abs() < 1e-12, "{fit:?}");
        let error = LN_10 * b * b * (fit_squares() / (70.0 * 69.0)).sqrt();
        assert!((fit.b_error - error).abs() < 1e-12, "{fit:?} {error}");
    }

    fn fit_squares() -> f64 {
        let mean = 88.0 / 70.0;
        [(1.2, 40.0), (1.3, 20.0), (1.4, 10.0)].iter().map(|(m, n): &(f64, f64)| n * (m - mean).powi(2)).sum()
    }

    #[test]
    fn the_b_of_a_lawful_catalogue_is_found() {
        for b in [0.7, 1.0, 1.3] {
            let fit = fit(&lawful(b), 1).unwrap();
            assert!((fit.b - b).abs() < 3.0 * fit.b_error + 0.01, "{fit:?} for {b}");
            assert!(fit.b_interval.0 < fit.b && fit.b < fit.b_interval.1, "{fit:?} for {b}");
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_catalogues() {
        let bins = histogram(&[(10, 60), (12, 40), (13, 20), (14, 10)]);
        assert_eq!(fit(&bins, 7), fit(&bins, 7));
        assert_ne!(fit(&bins, 7), fit(&bins, 8));
    }

    #[test]
    fn too_few_quakes_are_not_fitted() {
        for bins in [vec![], vec![(10, 49)], vec![(10, 60), (12, 49)]] {
            assert_eq!(fit(&histogram(&bins), 1), None, "{bins:?}");
        }
    }
}
