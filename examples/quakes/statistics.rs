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
//! - That error takes the completeness for exact. The bootstrap (Efron 1979) does not: it fits catalogues drawn from
//!   this one with replacement, each from a completeness of its own.

use std::collections::BTreeMap;
use std::f64::consts::{LN_10, LOG10_E};

use edri::data;

/// From the middle of the fullest bin to the completeness, in tenths.
const CORRECTION: i16 = 2;
/// With fewer quakes than this there is nothing to fit.
const COUNT_MIN: u64 = 50;
/// How many catalogues the bootstrap draws.
const REPLICATES: usize = 1000;
/// The most quakes in each. From a larger catalogue fewer are drawn than it has, and the spread is scaled ("m out of n":
/// Bickel, Götze & van Zwet 1997), so that a load test does not wait for its statistics.
const DRAWS_MAX: u64 = 5_000;

/// The magnitudes of many quakes.
#[data]
pub(crate) struct Study {
    pub(crate) histogram: Vec<Bin>,
    /// The law for all natural quakes.
    pub(crate) gutenberg_richter: Option<GutenbergRichter>,
    /// The law for those of each network that has enough.
    #[serde(rename = "gutenberg_richter_by_network")]
    pub(crate) by_network: BTreeMap<String, GutenbergRichter>,
}

/// How many quakes have about this magnitude.
#[data]
#[derive(Debug, PartialEq)]
pub(crate) struct Bin {
    pub(crate) magnitude: f64,
    pub(crate) count: u64,
}

/// The law as fitted to a catalogue.
#[data]
#[derive(Debug, PartialEq)]
pub(crate) struct GutenbergRichter {
    pub(crate) a: f64,
    pub(crate) b: f64,
    /// The standard error of `b`.
    pub(crate) b_error: f64,
    /// Where 95 of 100 bootstrapped `b` lie.
    pub(crate) b_interval: (f64, f64),
    /// The magnitude of completeness.
    pub(crate) mc: f64,
    /// How many quakes are as large.
    pub(crate) count: u64,
}

/// Counts in bins of 0.1, by their middle in tenths of a magnitude.
#[derive(Default)]
pub(crate) struct Histogram(BTreeMap<i16, u64>);

impl Histogram {
    pub(crate) fn add(&mut self, magnitude: f64) {
        *self.0.entry((magnitude * 10.0).round() as i16).or_default() += 1;
    }

    pub(crate) fn bins(&self) -> Vec<Bin> {
        self.0.iter().map(|(&tenths, &count)| Bin { magnitude: f64::from(tenths) / 10.0, count }).collect()
    }

    /// Fits the law, unless too few quakes reach the completeness.
    pub(crate) fn fit(&self, seed: u64) -> Option<GutenbergRichter> {
        let bins: Vec<_> = self.0.iter().map(|(&tenths, &count)| (tenths, count)).collect();
        let fit = Fit::of(&bins).filter(|fit| fit.count >= COUNT_MIN as f64)?;
        let (b, mc, count) = (fit.b(), fit.mc, fit.count as u64);
        let b_interval = bootstrap(&bins, b, seed);
        Some(GutenbergRichter { a: fit.count.log10() + b * mc, b, b_error: fit.error(), b_interval, mc, count })
    }
}

/// The complete part of a catalogue.
struct Fit {
    mc: f64,
    count: f64,
    mean: f64,
    variance: f64,
}

impl Fit {
    fn of(bins: &[(i16, u64)]) -> Option<Self> {
        // Of bins equally full, the lowest.
        let (fullest, _) = bins.iter().rev().max_by_key(|(_, count)| count)?;
        let completeness = fullest + CORRECTION;
        let complete = || {
            let bins = bins.iter().filter(|(tenths, _)| *tenths >= completeness);
            bins.map(|&(tenths, count)| (f64::from(tenths) / 10.0, count as f64))
        };
        let count: f64 = complete().map(|(_, count)| count).sum();
        let mean = complete().map(|(magnitude, count)| magnitude * count).sum::<f64>() / count;
        let squares: f64 = complete().map(|(magnitude, count)| count * (magnitude - mean).powi(2)).sum();
        let (mc, variance) = (f64::from(completeness) / 10.0, squares / (count - 1.0));
        (count >= 2.0).then_some(Self { mc, count, mean, variance })
    }

    fn b(&self) -> f64 {
        LOG10_E / (self.mean - (self.mc - 0.05))
    }

    fn error(&self) -> f64 {
        LN_10 * self.b().powi(2) * (self.variance / self.count).sqrt()
    }
}

/// The interval around `b` in which 95 of 100 redrawn catalogues have theirs.
fn bootstrap(bins: &[(i16, u64)], b: f64, seed: u64) -> (f64, f64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut total = 0;
    let mut drawn = bins.to_vec();
    // For each bin, how many quakes are in it and below.
    let up_to: Vec<u64> = bins.iter().map(|(_, count)| (total += count, total).1).collect();
    let draws = total.min(DRAWS_MAX);
    let replicate = |_| {
        drawn.iter_mut().for_each(|(_, count)| *count = 0);
        for _ in 0..draws {
            let quake = random.u64(..total);
            drawn[up_to.partition_point(|&below| below <= quake)].1 += 1;
        }
        Fit::of(&drawn).map(|fit| fit.b())
    };
    let mut replicates: Vec<f64> = (0..REPLICATES).filter_map(replicate).collect();
    replicates.sort_by(f64::total_cmp);
    let scale = (draws as f64 / total as f64).sqrt();
    let quantile = |per_mille: usize| {
        let at = replicates.len().saturating_sub(1) * per_mille / 1000;
        replicates.get(at).map_or(b, |replicate| b + (replicate - b) * scale)
    };
    (quantile(25), quantile(975))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: [(i16, u64); 4] = [(10, 60), (12, 40), (13, 20), (14, 10)];

    fn fit(bins: &[(i16, u64)], seed: u64) -> Option<GutenbergRichter> {
        Histogram(bins.iter().copied().collect()).fit(seed)
    }

    #[test]
    fn magnitudes_are_counted_in_the_nearest_bin() {
        let mut histogram = Histogram::default();
        for magnitude in [-0.07, -0.8, 0.04, 1.25, 1.3, 6.4] {
            histogram.add(magnitude);
        }
        let expect = [(-0.8, 1), (-0.1, 1), (0.0, 1), (1.3, 2), (6.4, 1)];
        assert_eq!(histogram.bins(), expect.map(|(magnitude, count)| Bin { magnitude, count }));
    }

    #[test]
    fn a_small_catalogue_is_fitted_as_on_paper() {
        let fit = fit(&SMALL, 1).unwrap();
        // Fullest at 1.0, so complete from 1.2. There are 70, their mean is 88/70, and the sum of the squares about it
        // 40 (4/70)² + 20 (3/70)² + 10 (10/70)².
        let b = LOG10_E / (88.0 / 70.0 - 1.15);
        let squares = (40.0 * 16.0 + 20.0 * 9.0 + 10.0 * 100.0) / 4900.0;
        let error = LN_10 * b * b * f64::sqrt(squares / (70.0 * 69.0));
        assert_eq!((fit.mc, fit.count), (1.2, 70));
        for (value, expect) in [(fit.b, b), (fit.a, 70_f64.log10() + 1.2 * b), (fit.b_error, error)] {
            assert!((value - expect).abs() < 1e-12, "{value} is not {expect}");
        }
    }

    #[test]
    fn the_b_of_a_lawful_catalogue_is_found() {
        for b in [0.7, 1.0, 1.3] {
            let mut random = fastrand::Rng::with_seed(1);
            let mut histogram = Histogram([(8, 500_000)].into());
            for _ in 0..100_000 {
                histogram.add(0.95 - (1.0 - random.f64()).log10() / b);
            }
            let fit = histogram.fit(1).unwrap();
            assert!((fit.b - b).abs() < 3.0 * fit.b_error + 0.01, "{fit:?} for {b}");
            assert!(fit.b_interval.0 < fit.b && fit.b < fit.b_interval.1, "{fit:?} for {b}");
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_catalogues() {
        assert_eq!(fit(&SMALL, 7), fit(&SMALL, 7));
        assert_ne!(fit(&SMALL, 7), fit(&SMALL, 8));
    }

    #[test]
    fn too_few_quakes_are_not_fitted() {
        for bins in [vec![], vec![(10, 49)], vec![(10, 60), (12, 49)]] {
            assert_eq!(fit(&bins, 1), None, "{bins:?}");
        }
    }
}
