//! What was found: as JSON for programs, as tables and bars for people.

use std::collections::BTreeMap;
use std::io::{self, Write};

use edri::{Account, GroupView};
use serde::{Serialize, Serializer};

use crate::events::{NetworkSummary, QuakeAlert};
use crate::statistics::{GutenbergRichter, Histogram};
use crate::workers::ALERT_MAGNITUDE;

/// Everything that the program found out. Written as JSON as it stands.
#[derive(Serialize)]
pub(crate) struct Findings {
    pub(crate) events: u64,
    pub(crate) first_ms: Option<i64>,
    pub(crate) last_ms: Option<i64>,
    pub(crate) networks: BTreeMap<String, Network>,
    /// How many there were.
    pub(crate) alerts: u64,
    pub(crate) strongest: Vec<QuakeAlert>,
    #[serde(serialize_with = "bins")]
    pub(crate) histogram: Histogram,
    pub(crate) gutenberg_richter: Option<GutenbergRichter>,
    pub(crate) account: Balance,
    #[serde(skip)]
    pub(crate) managers: Vec<GroupView>,
    /// Seconds from the first byte of the catalogue until every delivery had come to its end.
    pub(crate) elapsed: f64,
    /// Quakes a second.
    pub(crate) rate: f64,
}

#[derive(Serialize)]
pub(crate) struct Network {
    #[serde(flatten)]
    pub(crate) summary: NetworkSummary,
    pub(crate) gutenberg_richter: Option<GutenbergRichter>,
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

fn bins<S: Serializer>(histogram: &Histogram, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Bin {
        magnitude: f64,
        count: u64,
    }
    serializer.collect_seq(histogram.bins().map(|(tenths, count)| Bin { magnitude: f64::from(tenths) / 10.0, count }))
}

/// Writes a page of text. With `colour`, headings and bars stand out in a terminal.
pub(crate) struct Page<W> {
    pub(crate) out: W,
    pub(crate) colour: bool,
}

impl<W: Write> Page<W> {
    pub(crate) fn write(&mut self, findings: &Findings) -> io::Result<()> {
        self.networks(findings)?;
        self.magnitudes(findings)?;
        self.alerts(findings)?;
        self.law(findings)?;
        self.deliveries(findings)?;
        self.out.flush()
    }

    fn networks(&mut self, findings: &Findings) -> io::Result<()> {
        let span = match (findings.first_ms, findings.last_ms) {
            (Some(first), Some(last)) => format!(", {} to {} UTC", date(first), date(last)),
            _ => String::new(),
        };
        self.heading(&format!("{} quakes{span}", grouped(findings.events)))?;
        self.dim("network      quakes  largest   b ± error     where the largest was")?;
        let mut networks: Vec<_> = findings.networks.iter().collect();
        networks.sort_by_key(|(_, network)| std::cmp::Reverse(network.summary.count));
        for (name, Network { summary, gutenberg_richter }) in networks {
            let count = grouped(summary.count);
            let largest = summary.largest.map_or_else(|| "–".to_owned(), |largest| format!("{largest:.1}"));
            let b = gutenberg_richter.as_ref().map_or_else(|| "–".to_owned(), |law| b(law));
            let place = summary.place.as_deref().unwrap_or("–");
            writeln!(self.out, "  {name:<8} {count:>9} {largest:>8}   {b:<13} {place}")?;
        }
        Ok(())
    }

    fn magnitudes(&mut self, findings: &Findings) -> io::Result<()> {
        self.heading("Magnitudes")?;
        // Half a magnitude a row, from the lowest to the highest.
        let mut rows: BTreeMap<i16, u64> = BTreeMap::new();
        for (tenths, count) in findings.histogram.bins() {
            *rows.entry(tenths.div_euclid(5)).or_default() += count;
        }
        let most = rows.values().copied().max().unwrap_or(1);
        let (Some((&low, _)), Some((&high, _))) = (rows.first_key_value(), rows.last_key_value()) else {
            return Ok(());
        };
        for row in low..=high {
            let count = rows.get(&row).copied().unwrap_or(0);
            let from = f64::from(row) / 2.0;
            let strong = from >= ALERT_MAGNITUDE;
            let bar = self.paint(if strong { "31" } else { "36" }, &bar(count as f64 / most as f64));
            writeln!(self.out, "  {from:>4.1} to {:>4.1}  {bar} {}", from + 0.4, grouped(count))?;
        }
        Ok(())
    }

    fn alerts(&mut self, findings: &Findings) -> io::Result<()> {
        let heading = format!("{} alerts, of magnitude {ALERT_MAGNITUDE} or more", grouped(findings.alerts));
        self.heading(&heading)?;
        for QuakeAlert { magnitude, place, time_ms, .. } in &findings.strongest {
            let magnitude = self.paint("31", &format!("{magnitude:.1}"));
            writeln!(self.out, "  {magnitude}  {} UTC  {place}", date(*time_ms))?;
        }
        Ok(())
    }

    fn law(&mut self, findings: &Findings) -> io::Result<()> {
        self.heading("Gutenberg–Richter: log₁₀ N = a − b M")?;
        let Some(law) = &findings.gutenberg_richter else {
            return writeln!(self.out, "  too few quakes to fit");
        };
        let (low, high) = law.b_interval;
        let (b, count) = (b(law), grouped(law.count));
        writeln!(self.out, "  a {:.2}, b {b}, by bootstrap {low:.2} to {high:.2} (95 %)", law.a)?;
        writeln!(
            self.out,
            "  from the {count} natural quakes of magnitude {:.1}, where the feed is complete, or more",
            law.mc
        )?;
        self.dim("The feed joins dense networks with a thin one for the world, which flattens it:")?;
        self.dim("the b of a single network, in the table above, says more of the Earth.")
    }

    fn deliveries(&mut self, findings: &Findings) -> io::Result<()> {
        self.heading("Deliveries")?;
        self.dim("manager      deliveries      handled  failed  dead-lettered  cancelled  open")?;
        for manager in &findings.managers {
            self.account(&manager.name.manager().map(ToString::to_string).unwrap_or_default(), &manager.account)?;
        }
        self.account("all", &findings.account.account)?;
        let balance =
            if findings.account.balanced { self.paint("32", "balanced") } else { self.paint("31", "not balanced") };
        let (events, rate) = (grouped(findings.events), grouped(findings.rate as u64));
        writeln!(self.out, "\n  {balance}; {events} quakes in {:.3} s, {rate} a second", findings.elapsed)
    }

    fn account(&mut self, name: &str, account: &Account) -> io::Result<()> {
        let [deliveries, handled] = [account.deliveries, account.handled].map(grouped);
        let Account { failed, dead_lettered, cancelled, queued, in_hand, .. } = account;
        let open = queued + in_hand;
        writeln!(
            self.out,
            "  {name:<11} {deliveries:>11}  {handled:>11}  {failed:>6}  {dead_lettered:>13}  {cancelled:>9}  {open:>4}"
        )
    }

    fn heading(&mut self, text: &str) -> io::Result<()> {
        let text = self.paint("1", text);
        writeln!(self.out, "\n{text}")
    }

    fn dim(&mut self, text: &str) -> io::Result<()> {
        let text = self.paint("2", text);
        writeln!(self.out, "  {text}")
    }

    /// The text in the colour or weight of this code (ECMA-48, SGR).
    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn b(law: &GutenbergRichter) -> String {
    format!("{:.2} ± {:.2}", law.b, law.b_error)
}

/// A bar of at most 40 characters, drawn to an eighth of one.
fn bar(share: f64) -> String {
    let eighths = (share * 40.0 * 8.0).ceil() as usize;
    let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    "█".repeat(eighths / 8) + rest
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
/// Date Algorithms", 2014).
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
        check(341_400, "341,400");
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
        assert_eq!(bar(0.0), "");
        assert_eq!(bar(0.0001), "▏");
        assert_eq!(bar(0.5), "█".repeat(20));
        assert_eq!(bar(1.0), "█".repeat(40));
    }
}
