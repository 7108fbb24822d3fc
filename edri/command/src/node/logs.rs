//! Where the log goes.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use super::config::{Log, LogFormat, Traces};
#[cfg(feature = "otlp")]
use super::traces::{Exported, Exporter, Service};

/// Reads a filter: a level, or targets with levels.
pub(crate) fn filter(text: &str) -> Result<Targets, String> {
    let wrong = |why: String| {
        format!(
            "`{text}` is no filter ({why}): write a level (`error`, `warn`, `info`, `debug`, `trace`, `off`), or targets with levels, like `info,edri::access=debug`"
        )
    };
    let mut targets = Targets::new().with_default(LevelFilter::OFF);
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (target, level) = part.split_once('=').map_or((None, part), |(target, level)| (Some(target), level));
        let level: LevelFilter = level.parse().map_err(|_| wrong(format!("`{level}` is no level")))?;
        targets = match target {
            Some(target) => targets.with_target(target, level),
            None => targets.with_default(level),
        };
    }
    Ok(targets)
}

/// The log of this process.
pub(crate) struct Logs {
    filter: reload::Handle<Targets, Registry>,
    file: Option<Reopened>,
    /// Dropped, it sends what it has.
    #[cfg(feature = "otlp")]
    _exporter: Option<Exporter>,
}

/// Begins to log, and to export spans.
pub(crate) fn begin(log: &Log, traces: &Traces, node: &str) -> Result<Logs, String> {
    let file = log.file.as_deref().map(Reopened::open).transpose()?;
    let (filter, handle) = reload::Layer::new(filter(&log.filter)?);
    let output = Output(file.clone());
    // Colours are for people.
    let has_colours = file.is_none() && io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match log.format {
        LogFormat::Text => tracing_subscriber::fmt::layer().with_ansi(has_colours).with_writer(output).boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_writer(output)
            .boxed(),
    };
    let registry = tracing_subscriber::registry().with(layer.with_filter(filter));
    #[cfg(feature = "otlp")]
    let (exporter, registry) = {
        let (exporter, exported) = exporter(traces, node)?.unzip();
        (exporter, registry.with(exported.map(|exported| exported.with_filter(Exported::filter()))))
    };
    #[cfg(not(feature = "otlp"))]
    let _ = (traces, node);
    registry.try_init().map_err(|error| format!("the log cannot begin: {error}"))?;
    Ok(Logs {
        filter: handle,
        file,
        #[cfg(feature = "otlp")]
        _exporter: exporter,
    })
}

#[cfg(feature = "otlp")]
fn exporter(traces: &Traces, node: &str) -> Result<Option<(Exporter, Exported)>, String> {
    let Some(url) = &traces.otlp else { return Ok(None) };
    edri::TraceContext::record_roots(traces.share);
    let name = traces.service.clone().unwrap_or_else(|| "edri".to_owned());
    super::traces::begin(url, Service { name, node: node.to_owned() }).map(Some)
}

impl Logs {
    /// Opens the file anew, after it was moved away, and takes up another filter.
    pub(crate) fn renew(&self, log: &Log) {
        if let Some(Err(error)) = self.file.as_ref().map(Reopened::reopen) {
            tracing::error!(%error, "the log goes on in the file that was open");
        }
        match filter(&log.filter) {
            Ok(filter) => {
                if let Err(error) = self.filter.reload(filter) {
                    tracing::error!(%error, "the filter of the log stays what it was");
                }
            }
            Err(error) => tracing::error!(%error, "the filter of the log stays what it was"),
        }
        tracing::info!(filter = log.filter, "the log was opened anew");
    }
}

/// A file that may be moved away while it is written.
#[derive(Debug, Clone)]
struct Reopened {
    path: PathBuf,
    // Held to write a line, or to change the file.
    file: Arc<Mutex<File>>,
}

impl Reopened {
    fn open(path: &Path) -> Result<Self, String> {
        Ok(Self { path: path.to_owned(), file: Arc::new(Mutex::new(append(path)?)) })
    }

    fn reopen(&self) -> Result<(), String> {
        let file = append(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }
}

fn append(path: &Path) -> Result<File, String> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|error| format!("the log `{}` cannot be written: {error}", path.display()))
}

/// A file, or standard error.
struct Output(Option<Reopened>);

impl<'w> MakeWriter<'w> for Output {
    type Writer = Line;

    fn make_writer(&'w self) -> Line {
        Line(self.0.clone())
    }
}

/// Writes a line, which the layer hands over as a whole.
struct Line(Option<Reopened>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.0 {
            Some(reopened) => reopened.file.lock().unwrap_or_else(PoisonError::into_inner).write(bytes),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::filter;

    #[test]
    fn a_filter_is_a_level_or_targets_with_levels() {
        let allows = |text: &str, target: &str, level| filter(text).map(|filter| filter.would_enable(target, &level));
        assert_eq!(allows("info", "edri_router", Level::INFO), Ok(true));
        assert_eq!(allows("info", "edri_router", Level::DEBUG), Ok(false));
        assert_eq!(allows("warn,edri::access=debug", "edri::access", Level::DEBUG), Ok(true));
        assert_eq!(allows("off", "edri_router", Level::ERROR), Ok(false));
        for wrong in ["loud", "info,edri::access=loud"] {
            assert!(filter(wrong).is_err_and(|error| error.contains("`loud` is no level")), "{wrong}");
        }
    }
}
