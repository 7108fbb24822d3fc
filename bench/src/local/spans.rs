//! What spans cost: wanted, and not wanted as in production without a collector.

use std::fmt::Debug;
use std::time::{Instant, SystemTime};

use edri_router::traced;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, filter::Filtered};

use super::notify::sink;
use crate::Result;
use crate::case::Figures;
use crate::event::{Done, Sealer, Tick, node, publish, stop};
use crate::harness::{Plan, Side, compare};

/// A look takes so little that many are timed at once.
const LOOKS: u64 = 10_000_000;

/// The whole way of an event with spans that somebody wants, beside the same with a subscriber that does not want them, as a node of the
/// command has without a collector. What is wanted is read as the command's exporter reads it, and not sent. The note says what it costs
/// to look whether spans are wanted, once for the publishing and once for the handling: measured alone, so it is the least that they cost.
pub(crate) async fn spans(plan: Plan) -> Result<Figures> {
    let switch = Switch::install()?;
    let looks = looks();
    let done = Done::new();
    let node = node([sink("sink", 1, false, &done)]).await?;
    let side = |name, wanted: bool| {
        let (switch, bus, done) = (switch.clone(), node.bus().clone(), done.clone());
        Side::new(name, move |rounds| {
            switch.set(wanted);
            publish(bus.clone(), rounds, vec![0], 1, done.clone())
        })
    };
    let (wanted, not_wanted) = (side("spans wanted", true), side("spans not wanted", false));
    let mut figures = compare(&plan, wanted, vec![not_wanted]).await;
    switch.set(false);
    stop(node).await?;
    let way = 1e9 / figures.reference_value;
    figures.note = format!(
        "not wanted: {looks:.1} of {way:.0} ns an event, {:.1} %; wanted: {:.0} ns more; {}",
        100.0 * looks / way,
        1e9 / figures.ours - way,
        figures.note
    );
    Ok(figures)
}

/// Nanoseconds of both looks of an event when nobody wants spans.
fn looks() -> f64 {
    let envelope = Sealer::new().seal(Tick::new(0));
    let began = Instant::now();
    for _ in 0..LOOKS {
        let envelope = std::hint::black_box(&envelope);
        drop(std::hint::black_box((traced::publish(envelope), traced::handle(envelope))));
    }
    began.elapsed().as_nanos() as f64 / LOOKS as f64
}

/// Whether spans are wanted, in a subscriber of the whole process: worker threads have no other.
#[derive(Clone)]
struct Switch(Handle<Filtered<Read, Targets, Registry>, Registry>);

impl Switch {
    fn install() -> Result<Self> {
        let (layer, handle) = reload::Layer::new(Read.with_filter(Targets::new()));
        tracing_subscriber::registry().with(layer).try_init()?;
        Ok(Self(handle))
    }

    fn set(&self, wanted: bool) {
        let wanted = if wanted { LevelFilter::from_level(Level::DEBUG) } else { LevelFilter::OFF };
        let targets = Targets::new().with_target(traced::TARGET, wanted);
        self.0.modify(|layer| *layer.filter_mut() = targets).expect("the subscriber is there");
    }
}

/// Reads what spans say of themselves.
struct Read;

/// What was read of a span.
#[derive(Default)]
struct Begun {
    texts: Vec<String>,
    at: Option<SystemTime>,
}

impl Visit for Begun {
    fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
        self.texts.push(format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for Read {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut begun = Begun { at: Some(SystemTime::now()), ..Begun::default() };
        attributes.record(&mut begun);
        span.extensions_mut().insert(begun);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let begun = span.extensions_mut().remove::<Begun>();
        std::hint::black_box((begun.map(|begun| (begun.at, begun.texts)), SystemTime::now()));
    }
}
