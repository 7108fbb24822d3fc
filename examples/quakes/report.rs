//! What was found: as JSON for programs, as a page for people.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{self, Write};

use edri::{Account, GroupView};
use serde::{Serialize, Serializer};

use crate::events::{LatestQuake, NetworkSummary, QuakeAlert, Region};
use crate::statistics::{GutenbergRichter, Study};
use crate::summaries::Summary;
use crate::workers::ALERT_MAGNITUDE;

/// Everything that the program found out. Its JSON has the same shape.
#[derive(Serialize)]
pub(crate) struct Findings {
    pub(crate) events: u64,
    pub(crate) first_ms: Option<i64>,
    pub(crate) last_ms: Option<i64>,
    pub(crate) networks: BTreeMap<String, NetworkSummary>,
    /// How many there were.
    pub(crate) alerts: u64,
    pub(crate) strongest: Vec<QuakeAlert>,
    /// One every six hours of the replay, where it has a speed.
    pub(crate) summaries: Vec<Summary>,
    /// The latest quake by region, as the store has it.
    pub(crate) latest: BTreeMap<String, LatestQuake>,
    /// In how many transactions it was written.
    pub(crate) latest_transactions: u64,
    /// That of the strongest quake first; nothing without Python.
    pub(crate) regions: Option<Vec<Region>>,
    #[serde(flatten)]
    pub(crate) study: Study,
    pub(crate) account: Balance,
    #[serde(serialize_with = "accounts")]
    pub(crate) managers: Vec<GroupView>,
    /// How often a manager's worker was lost; what it had learned until then is missing above.
    pub(crate) lost_workers: BTreeMap<String, u32>,
    /// Seconds from the first byte of the catalogue until every delivery had come to its end; on several nodes, what the
    /// slowest sensor took until all it published had arrived.
    pub(crate) elapsed: f64,
    /// Quakes a second.
    pub(crate) rate: f64,
}

#[derive(Serialize)]
pub(crate) struct Balance {
    #[serde(flatten)]
    account: Account,
    pub(crate) balanced: bool,
}

impl From<Account> for Balance {
    fn from(account: Account) -> Self {
        Self { account, balanced: account.is_balanced() }
    }
}

/// What became of each manager's deliveries, by its name.
fn accounts<S: Serializer>(managers: &[GroupView], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(managers.iter().filter_map(|manager| Some((manager.name.manager()?, manager.account))))
}

/// How many regions are on the page.
const REGIONS_SHOWN: usize = 10;
/// How many of the latest quakes are.
const LATEST_SHOWN: usize = 5;

// The colours of a terminal (ECMA-48, select graphic rendition).
const BOLD: u8 = 1;
const DIM: u8 = 2;
const RED: u8 = 31;
const GREEN: u8 = 32;
const CYAN: u8 = 36;

/// A page of text, in colour or without.
pub(crate) struct Page<W> {
    pub(crate) out: W,
    pub(crate) colour: bool,
}

impl<W: Write> Page<W> {
    pub(crate) fn write(&mut self, findings: &Findings) -> io::Result<()> {
        self.networks(findings)?;
        self.magnitudes(findings)?;
        self.alerts(findings)?;
        self.latest(findings)?;
        self.regions(findings)?;
        self.law(findings)?;
        self.deliveries(findings)?;
        self.out.flush()
    }

    fn networks(&mut self, Findings { events, first_ms, last_ms, networks, study, .. }: &Findings) -> io::Result<()> {
        let span = first_ms.zip(*last_ms).map(|(first, last)| format!(", {} to {} UTC", date(first), date(last)));
        self.line(BOLD, &format!("\n{} quakes{}", grouped(*events), span.unwrap_or_default()))?;
        self.line(DIM, "  network      quakes  largest   b ± error     where the largest was")?;
        let mut networks: Vec<_> = networks.iter().collect();
        networks.sort_by_key(|(_, network)| Reverse(network.count));
        for (name, NetworkSummary { count, largest, place }) in networks {
            let [largest, b] = [largest.map(|largest| format!("{largest:.1}")), study.by_network.get(name).map(b)]
                .map(|text| text.unwrap_or_else(|| "–".to_owned()));
            let (count, place) = (grouped(*count), place.as_deref().unwrap_or("–"));
            writeln!(self.out, "  {name:<8} {count:>10} {largest:>8}   {b:<13} {place}")?;
        }
        Ok(())
    }

    fn magnitudes(&mut self, findings: &Findings) -> io::Result<()> {
        self.line(BOLD, "\nMagnitudes")?;
        // Half a magnitude a row.
        let mut rows: BTreeMap<i64, u64> = BTreeMap::new();
        for bin in &findings.study.histogram {
            *rows.entry((bin.magnitude * 2.0).floor() as i64).or_default() += bin.count;
        }
        let most = rows.values().copied().max().unwrap_or(1);
        let last = rows.last_key_value().map_or(-1, |(row, _)| *row);
        for row in rows.first_key_value().map_or(0, |(row, _)| *row)..=last {
            let (from, count) = (row as f64 / 2.0, rows.get(&row).copied().unwrap_or(0));
            let colour = if from >= ALERT_MAGNITUDE { RED } else { CYAN };
            let bar = self.paint(colour, &bar(count as f64 / most as f64));
            writeln!(self.out, "  {from:>4.1} to {:>4.1}  {bar} {}", from + 0.4, grouped(count))?;
        }
        Ok(())
    }

    fn alerts(&mut self, findings: &Findings) -> io::Result<()> {
        let alerts = grouped(findings.alerts);
        self.line(BOLD, &format!("\n{alerts} alerts, of magnitude {ALERT_MAGNITUDE} or more; the strongest"))?;
        for QuakeAlert { magnitude, place, time_ms, .. } in &findings.strongest {
            let magnitude = self.paint(RED, &format!("{magnitude:.1}"));
            writeln!(self.out, "  {magnitude}  {} UTC  {place}", date(*time_ms))?;
        }
        if !findings.summaries.is_empty() {
            let counts: Vec<_> = findings.summaries.iter().map(|summary| summary.alerts.to_string()).collect();
            self.line(DIM, &format!("  by every six hours: {}", counts.join(", ")))?;
        }
        Ok(())
    }

    fn latest(&mut self, Findings { latest, latest_transactions, .. }: &Findings) -> io::Result<()> {
        let (regions, written) = (grouped(latest.len() as u64), grouped(*latest_transactions));
        self.line(BOLD, &format!("\nThe latest quakes of {regions} regions, written to the store in {written} steps"))?;
        let mut latest: Vec<_> = latest.iter().collect();
        latest.sort_by_key(|(_, quake)| Reverse((quake.time_ms, &quake.id)));
        for (region, LatestQuake { magnitude, place, time_ms, .. }) in latest.into_iter().take(LATEST_SHOWN) {
            let magnitude = magnitude.map_or_else(|| "–".to_owned(), |magnitude| format!("{magnitude:.1}"));
            writeln!(self.out, "  {region:<26} {magnitude:>4}  {} UTC  {place}", date(*time_ms))?;
        }
        Ok(())
    }

    fn regions(&mut self, findings: &Findings) -> io::Result<()> {
        let Some(regions) = &findings.regions else { return Ok(()) };
        self.line(BOLD, &format!("\n{} regions; those of the strongest quakes", regions.len()))?;
        self.line(DIM, &format!("  {:<26} {:>6} {:>10}   {}", "region", "quakes", "strongest", "where that was"))?;
        for Region { region, count, strongest, place } in regions.iter().take(REGIONS_SHOWN) {
            let strongest = strongest.map_or_else(|| "–".to_owned(), |strongest| format!("{strongest:.1}"));
            writeln!(self.out, "  {region:<26} {:>6} {strongest:>10}   {place}", grouped(*count))?;
        }
        Ok(())
    }

    fn law(&mut self, findings: &Findings) -> io::Result<()> {
        self.line(BOLD, "\nGutenberg–Richter: log₁₀ N = a − b M")?;
        let Some(law) = &findings.study.gutenberg_richter else {
            return writeln!(self.out, "  too few quakes to tell");
        };
        let (count, (low, high)) = (grouped(law.count), law.b_interval);
        writeln!(self.out, "  a {:.2}, b {}; 95 of 100 bootstrapped b in {low:.2} to {high:.2}", law.a, b(law))?;
        writeln!(
            self.out,
            "  from the {count} natural quakes at or above the magnitude of completeness, {:.1}",
            law.mc
        )?;
        self.line(DIM, "  The feed joins dense networks with a sparse one for the whole world, which flattens b;")?;
        self.line(DIM, "  that of a single network, in the table above, says more of the Earth.")
    }

    fn deliveries(&mut self, findings: &Findings) -> io::Result<()> {
        self.line(BOLD, "\nDeliveries")?;
        self.line(DIM, "  manager      deliveries      handled  failed  dead-lettered  cancelled  open")?;
        for manager in &findings.managers {
            let name = manager.name.manager().map(ToString::to_string);
            self.account(&name.unwrap_or_default(), &manager.account)?;
        }
        self.account("all", &findings.account.account)?;
        for (manager, lost) in &findings.lost_workers {
            let text = format!("  {manager}: a worker was lost, {lost} in all, with what it had learned until then");
            self.line(RED, &text)?;
        }
        let (colour, balance) = if findings.account.balanced { (GREEN, "balanced") } else { (RED, "not balanced") };
        let (balance, events, rate) =
            (self.paint(colour, balance), grouped(findings.events), grouped(findings.rate as u64));
        writeln!(self.out, "\n{balance}: {events} quakes in {:.3} s, {rate} a second", findings.elapsed)
    }

    fn account(&mut self, name: &str, account: &Account) -> io::Result<()> {
        let [deliveries, handled] = [account.deliveries, account.handled].map(grouped);
        let Account { failed, dead_lettered: dead, cancelled, .. } = account;
        let open = account.queued + account.in_hand;
        write!(self.out, "  {name:<12} {deliveries:>10}  {handled:>11}")?;
        writeln!(self.out, "  {failed:>6}  {dead:>13}  {cancelled:>9}  {open:>4}")
    }

    fn line(&mut self, colour: u8, text: &str) -> io::Result<()> {
        let text = self.paint(colour, text);
        writeln!(self.out, "{text}")
    }

    fn paint(&self, colour: u8, text: &str) -> String {
        if self.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn b(law: &GutenbergRichter) -> String {
    format!("{:.2} ± {:.2}", law.b, law.b_error)
}

/// A bar of at most 40 characters, drawn to an eighth of one.
fn bar(share: f64) -> String {
    let eighths = (share * 40.0 * 8.0).ceil() as usize;
    "█".repeat(eighths / 8) + ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8]
}

/// `1707` as `1,707`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Milliseconds since 1970 as day and minute. The calendar is Hinnant's `civil_from_days` ("chrono-Compatible Low-Level
/// Date Algorithms", 2013).
fn date(time_ms: i64) -> String {
    let minutes = time_ms.div_euclid(60_000);
    let (days, minute) = (minutes.div_euclid(1440) + 719_468, minutes.rem_euclid(1440));
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}", minute / 60, minute % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let check = |number, expect: &str| assert_eq!(grouped(number), expect);
        check(0, "0");
        check(999, "999");
        check(1_707, "1,707");
        check(1_000_000, "1,000,000");
    }

    #[test]
    fn times_are_written_as_in_the_calendar() {
        let check = |time_ms, expect: &str| assert_eq!(date(time_ms), expect);
        check(0, "1970-01-01 00:00");
        check(-1, "1969-12-31 23:59");
        check(951_782_400_000, "2000-02-29 00:00");
        check(1_517_966_773_840, "2018-02-07 01:26");
        check(4_107_542_399_999, "2100-02-28 23:59");
    }

    #[test]
    fn a_bar_grows_by_eighths_and_the_least_is_seen() {
        let check = |share, expect: &str| assert_eq!(bar(share), expect);
        check(0.0, "");
        check(0.0001, "▏");
        check(0.0125, "▌");
        check(1.0, &"█".repeat(40));
    }
}
