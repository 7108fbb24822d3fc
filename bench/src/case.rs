//! What a case is, and what comes of one.

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::harness::Plan;

/// One comparison, with the ratio it is to reach.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Of what is measured: events a second, or a time.
    pub(crate) unit: &'static str,
    /// The least ratio; a case without one is there to inform.
    pub(crate) budget: Option<f64>,
    /// One event at a time, each waking the other side: measured on one core too, where a wake-up costs nearly nothing.
    pub(crate) one_in_flight: bool,
    /// Why it cannot be measured here, if so.
    pub(crate) missing: fn() -> Option<String>,
    pub(crate) run: fn(Plan) -> Running,
}

/// A case being measured.
pub(crate) type Running = BoxFuture<'static, Result<Figures>>;

impl Case {
    /// A case with a budget.
    pub(crate) const fn new(name: &'static str, unit: &'static str, budget: f64, run: fn(Plan) -> Running) -> Self {
        Self { budget: Some(budget), ..Self::informing(name, unit, run) }
    }

    /// A case that only informs.
    pub(crate) const fn informing(name: &'static str, unit: &'static str, run: fn(Plan) -> Running) -> Self {
        Self { name, unit, budget: None, one_in_flight: false, missing: || None, run }
    }

    /// The same, one event at a time.
    pub(crate) const fn one_in_flight(self) -> Self {
        Self { one_in_flight: true, ..self }
    }

    /// The same, where what it needs may be missing.
    pub(crate) const fn needs(self, missing: fn() -> Option<String>) -> Self {
        Self { missing, ..self }
    }
}

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figures {
    pub(crate) ours: f64,
    pub(crate) reference: String,
    pub(crate) reference_value: f64,
    /// Ours ÷ reference in throughput, reference ÷ ours in times: more is better.
    pub(crate) ratio: f64,
    /// What a reader of the table should know.
    pub(crate) note: String,
}

/// What came of a case, as it is printed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) case: String,
    pub(crate) unit: String,
    pub(crate) ours: f64,
    pub(crate) reference: String,
    pub(crate) reference_value: f64,
    pub(crate) ratio: f64,
    pub(crate) budget: Option<f64>,
    pub(crate) within: Option<bool>,
    #[serde(skip)]
    pub(crate) note: String,
}

impl Outcome {
    pub(crate) fn new(name: String, case: &Case, figures: Figures) -> Self {
        let Figures { ours, reference, reference_value, ratio, note } = figures;
        let (unit, budget) = (case.unit.to_owned(), case.budget);
        let within = budget.map(|budget| ratio >= budget);
        Self { case: name, unit, ours, reference, reference_value, ratio, budget, within, note }
    }
}

/// The cases called `name`, or else those whose names begin with it.
pub(crate) fn select<'a>(cases: impl Iterator<Item = &'a Case> + Clone, name: Option<&str>) -> Vec<&'a Case> {
    let Some(name) = name else { return cases.collect() };
    let exact: Vec<_> = cases.clone().filter(|case| case.name == name).collect();
    if exact.is_empty() { cases.filter(|case| case.name.starts_with(name)).collect() } else { exact }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_name_selects_one_case_and_a_beginning_all_that_have_it() {
        fn never(_: Plan) -> Running {
            unreachable!("not run")
        }
        let cases = ["local.a", "local.a2", "idle.a"].map(|name| Case::informing(name, "events/s", never));
        let select = |name| select(cases.iter(), name).iter().map(|case| case.name).collect::<Vec<_>>();
        assert_eq!(select(Some("local.a")), ["local.a"]);
        assert_eq!(select(Some("local")), ["local.a", "local.a2"]);
        assert_eq!(select(Some("none")), [""; 0]);
        assert_eq!(select(None), ["local.a", "local.a2", "idle.a"]);
    }
}
