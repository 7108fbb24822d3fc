//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use edri::data;

const CATALOGUE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/quakes/data/earthquakes.geojson");
/// Where the switch listens and the others look for it, unless something else is said.
pub(crate) const SWITCH: &str = "127.0.0.1:7440";

/// Replays a week of earthquakes and says what there is to learn from them: in one process, or on several nodes.
#[derive(Parser)]
pub(crate) struct Arguments {
    /// Replay so many times faster than it happened; 86400 is a day a second [default: as fast as possible]
    #[arg(long, value_name = "FACTOR", value_parser = speed, allow_negative_numbers = true)]
    pub(crate) speed: Option<f64>,
    /// Replay the catalogue so often, each time a week later
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) repeat: u32,
    /// Print one JSON object instead of a page
    #[arg(long)]
    pub(crate) json: bool,
    /// Open the node to browsers and services at this address, replay at 3600 times the speed of the earth unless something
    /// else is said, and go on until it is stopped
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:8080",
        conflicts_with_all = ["cluster", "role"])]
    pub(crate) serve: Option<String>,
    /// Leave out the report by region, whose worker needs Python
    #[arg(long)]
    pub(crate) no_python: bool,
    /// A catalogue, in the GeoJSON of the USGS feeds [default: that of the example]
    #[arg(long, value_name = "PATH", default_value = CATALOGUE, hide_default_value = true)]
    pub(crate) file: PathBuf,

    /// Run four nodes, kill the switch between them in the middle, and compare with what one process finds
    #[arg(long, conflicts_with_all = ["role", "speed"], help_heading = "Several nodes")]
    pub(crate) cluster: bool,
    /// With --cluster: for so many seconds there is no switch
    #[arg(long, value_name = "SECONDS", default_value_t = 4, requires = "cluster", help_heading = "Several nodes",
        value_parser = clap::value_parser!(u64).range(1..=30))]
    pub(crate) outage: u64,
    /// Run one node of several
    #[arg(long, value_enum, help_heading = "Several nodes")]
    pub(crate) role: Option<Role>,
    /// Listen for neighbours [default of the switch: 127.0.0.1:7440; others only dial]
    #[arg(long, value_name = "ADDRESS", requires = "role", help_heading = "Several nodes", value_parser = address)]
    pub(crate) listen: Option<String>,
    /// Keep a link to the node at this address, or to several [default of who does not listen: 127.0.0.1:7440]
    #[arg(long, value_name = "ADDRESS", requires = "role", help_heading = "Several nodes", value_parser = address)]
    pub(crate) connect: Vec<String>,
    /// What the node is called; no two have one name [default: as its role, or as its keys say]
    #[arg(long, requires = "role", help_heading = "Several nodes")]
    pub(crate) name: Option<String>,
    /// The folder with the node's keys [default: made on first use, in `quakes-keys` beside the build]
    #[arg(long, value_name = "FOLDER", requires = "role", help_heading = "Several nodes")]
    pub(crate) keys: Option<PathBuf>,
    /// Make keys for nodes of these names, FOLDER/NAME each, and nothing else
    #[arg(long, num_args = 2.., value_names = ["FOLDER", "NAME"], exclusive = true, help_heading = "Several nodes")]
    pub(crate) make_keys: Vec<String>,
    /// Of a sensor: the part of the catalogue that it publishes; 1/2 is every other quake
    #[arg(long, value_name = "PART/OF", default_value = "1/1", requires = "role", help_heading = "Several nodes",
        value_parser = part)]
    pub(crate) part: Part,
    /// Of the centre: how many sensors there are
    #[arg(long, value_name = "NUMBER", default_value_t = 1, requires = "role", help_heading = "Several nodes",
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) sensors: u32,
}

/// What a node of several does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Publishes the quakes of a catalogue.
    Sensor,
    /// Studies all quakes, and ends with what it found once every sensor has said that it has no more.
    Centre,
    /// Forwards, and nothing else, until it is stopped.
    Switch,
}

impl Role {
    /// What a node of this role is called unless something else is said.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sensor => "sensor",
            Self::Centre => "centre",
            Self::Switch => "switch",
        }
    }
}

/// One of several equal parts of a catalogue: of every `of` quakes, the one at `index`, which is below `of`.
#[data]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    index: usize,
    of: usize,
}

impl Part {
    /// All of it.
    pub(crate) const WHOLE: Self = Self { index: 0, of: 1 };

    /// The items of this part, in their order.
    pub(crate) fn of<T>(self, items: Vec<T>) -> Vec<T> {
        items.into_iter().skip(self.index).step_by(self.of.max(1)).collect()
    }
}

fn speed(text: &str) -> Result<f64, &'static str> {
    let speed = text.parse().ok().filter(|speed| (0.01..=1e9).contains(speed));
    speed.ok_or("it is a number from 0.01 to 1e9")
}

fn part(text: &str) -> Result<Part, &'static str> {
    let part = text.split_once('/').and_then(|(part, of)| Some((part.parse::<usize>().ok()?, of.parse().ok()?)));
    let part = part.filter(|(part, of)| (1..=1000).contains(of) && (1..=*of).contains(part));
    part.map(|(part, of)| Part { index: part - 1, of }).ok_or("it is a part and how many there are, such as 1/2")
}

/// Whether somebody is there is seen later; that it is no address at all is said at once.
fn address(text: &str) -> Result<String, &'static str> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) => Ok(text.to_owned()),
        _ => Err("it is a host and a port, such as 127.0.0.1:7440"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_up_the_whole() {
        let all: Vec<_> = (0..7).collect();
        assert_eq!(Part::WHOLE.of(all.clone()), all);
        assert_eq!(part("1/2").unwrap().of(all.clone()), [0, 2, 4, 6]);
        assert_eq!(part("2/2").unwrap().of(all), [1, 3, 5]);
    }

    #[test]
    fn what_is_no_part_or_address_is_refused() {
        for text in ["", "1", "0/2", "3/2", "1/0", "1/x", "1/1001", "-1/2"] {
            assert!(part(text).is_err(), "{text}");
        }
        for text in ["", "7440", "localhost", ":7440", "localhost:", "localhost:70000", "[::1]"] {
            assert!(address(text).is_err(), "{text}");
        }
        for text in ["localhost:7440", "[::]:0", "127.0.0.1:7440"] {
            assert_eq!(address(text).as_deref(), Ok(text));
        }
    }
}
