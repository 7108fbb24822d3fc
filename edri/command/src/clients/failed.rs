//! What went wrong, in words that say what to do, with the code that says what kind it is.

use edri::{DeclareError, PublishError, RequestError, TunnelError};

use crate::exit::Failed;

/// What was asked, and of whom.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) event: &'a str,
    pub(super) to: Option<&'a str>,
}

impl<'a> Asked<'a> {
    pub(super) fn of(event: &'a str) -> Self {
        Self { event, to: None }
    }
}

pub(super) fn request(error: &RequestError, asked: &Asked<'_>) -> Failed {
    by_code(error.code(), &error.to_string(), asked)
}

pub(super) fn publish(error: &PublishError, event: &str) -> Failed {
    by_code(error.code(), &error.to_string(), &Asked::of(event))
}

pub(super) fn declare(error: &DeclareError, event: &str) -> Failed {
    by_code(error.code(), &error.to_string(), &Asked::of(event))
}

pub(super) fn tunnel(error: &TunnelError, event: &str) -> Failed {
    by_code(error.code(), &error.to_string(), &Asked::of(event))
}

/// What a code means to whoever runs the command.
fn by_code(code: &str, message: &str, asked: &Asked<'_>) -> Failed {
    let Asked { event, to } = asked;
    let first = event.split('.').next().unwrap_or(event);
    // Texts of handlers are told as they are, with their code.
    let said = if message.contains(code) { message.to_owned() } else { format!("{message} ({code})") };
    match code {
        "no_handler" if event.starts_with("edri.") => Failed::missing(match to {
            Some(to) => {
                format!("no node `{}` answers in this cluster: `edri nodes` lists them", to.trim_end_matches('/'))
            }
            None => format!("{said}: the node has not started wholly, or is stopping"),
        }),
        "no_handler" => Failed::missing(format!(
            "{said}{}: `edri managers --all` lists who runs, and `edri events` what there is",
            to.map(|to| format!(" at `{to}`")).unwrap_or_default()
        )),
        "unknown_event" if matches!(first, "schedule" | "store") => Failed::missing(format!(
            "{said}: there is no such {}, or the gateway does not expose it to operators (`Api::operators` in Rust)",
            if first == "store" { "namespace" } else { "scheduler" },
        )),
        "unknown_event" if event.starts_with("edri.") => {
            Failed::missing(format!("{said}: the node runs another version of edri; use the command of that version"))
        }
        "unknown_event" => {
            Failed::missing(format!("{said}: `edri events` lists what the node knows, and whether it is exposed"))
        }
        "forbidden" | "unauthorized" => Failed::refused(format!(
            "{said}: use a token whose permissions allow `{event}`{}",
            if matches!(first, "edri" | "schedule" | "store") {
                format!(" by a pattern that begins with its name, like `{first}.>`")
            } else {
                String::new()
            }
        )),
        "timed_out" => Failed::timed_out(format!(
            "{said}: give it longer with --timeout where there is one, or look with `edri managers` where events wait"
        )),
        "peer_lost" => {
            Failed::unreachable(format!("{said}: the node may be restarting; `edri nodes` shows who is there"))
        }
        "overloaded" => Failed::new(format!("{said}: try again later; `edri managers` shows whose inbox is full")),
        "stopping" => Failed::unreachable(format!("{said}: use another node of its cluster, or wait until it is back")),
        "unknown_entry" | "unknown_letter" | "unknown_manager" => Failed::missing(said),
        "no_history" => Failed::missing(format!(
            "{said}. In edri.toml that is a section `[histories.\"{event}\"]`. Without --last and --since, what comes from now on is shown"
        )),
        "invalid_name" | "invalid_conditions" | "invalid_page" => Failed::usage(said),
        "invalid_payload" => Failed::new(format!("{said}: `edri events {event}` shows what it takes")),
        "wrong_kind" => Failed::usage(format!("{said}: `edri events {event}` shows what it is")),
        _ => Failed::new(said),
    }
}
