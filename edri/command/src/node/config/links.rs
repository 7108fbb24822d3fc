//! Links to other nodes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use edri::{Connector, LinkOptions, NodeName, keys};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Size;
use super::{Checking, Span};

/// The least and the most that is on its way without having been read, or acknowledged.
const WINDOW_MIN: u32 = 64 << 10;
const WINDOW_MAX: u32 = 1 << 30;
/// No time of a link is longer.
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// What QUIC asks of every path.
const DATAGRAM_MIN: u16 = 1200;

/// How the node is joined to others.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Links {
    identity: Option<PathBuf>,
    listen: Option<String>,
    connect: Vec<String>,
    expects: Vec<String>,
    switch: bool,
    expiry: Span,
    outbox: usize,
    transport: Transport,
}

/// How links behave.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Transport {
    keep_alive: Span,
    silence: Span,
    handshake: Span,
    first_pause: Span,
    longest_pause: Span,
    window: Size,
    lane_window: Size,
    send_window: Size,
    datagram: u16,
    socket_buffer: Size,
}

impl Default for Transport {
    fn default() -> Self {
        let options = LinkOptions::default();
        let size = |bytes: u32| Size::from(bytes as usize);
        Self {
            keep_alive: options.keep_alive.into(),
            silence: options.idle_timeout.into(),
            handshake: options.connect_timeout.into(),
            first_pause: options.first_pause.into(),
            longest_pause: options.longest_pause.into(),
            window: size(options.window_bytes),
            lane_window: size(options.lane_window_bytes),
            send_window: size(options.send_window_bytes),
            datagram: options.datagram_bytes_max,
            socket_buffer: options.socket_bytes.into(),
        }
    }
}

impl Transport {
    fn build(&self, checking: &mut Checking) -> LinkOptions {
        let mut options = LinkOptions::default();
        options.keep_alive = self.keep_alive.into();
        options.idle_timeout = self.silence.into();
        options.connect_timeout = self.handshake.into();
        options.first_pause = self.first_pause.into();
        options.longest_pause = self.longest_pause.into();
        for (key, time) in [
            ("keep_alive", options.keep_alive),
            ("silence", options.idle_timeout),
            ("handshake", options.connect_timeout),
            ("first_pause", options.first_pause),
            ("longest_pause", options.longest_pause),
        ] {
            if time > TIME_MAX {
                checking.wrong(key, "it is a day at most");
            }
        }
        if options.keep_alive >= options.idle_timeout {
            checking.wrong("silence", "a link without events would be cut: it has to be longer than `keep_alive`");
        }
        if options.first_pause > options.longest_pause {
            checking.wrong("longest_pause", "it is shorter than `first_pause`");
        }
        let mut size = |key, size: Size| {
            let bytes = u32::try_from(size.bytes()).unwrap_or(u32::MAX);
            if !(WINDOW_MIN..=WINDOW_MAX).contains(&bytes) {
                checking.wrong(key, "it is 64KiB to 1GiB");
            }
            bytes
        };
        options.window_bytes = size("window", self.window);
        options.lane_window_bytes = size("lane_window", self.lane_window);
        options.send_window_bytes = size("send_window", self.send_window);
        options.socket_bytes = size("socket_buffer", self.socket_buffer) as usize;
        if self.datagram < DATAGRAM_MIN {
            checking.wrong("datagram", format!("every path carries {DATAGRAM_MIN} bytes: it is no less"));
        }
        options.datagram_bytes_max = self.datagram;
        options
    }
}

impl Default for Links {
    fn default() -> Self {
        Self {
            identity: None,
            listen: None,
            connect: Vec::new(),
            expects: Vec::new(),
            switch: false,
            expiry: Span::seconds(60),
            outbox: 1024,
            transport: Transport::default(),
        }
    }
}

impl Links {
    pub(super) fn build(&self, node: &str, checking: &mut Checking) -> (Connector, Vec<String>) {
        let mut connector = self.listen.as_deref().map_or_else(Connector::dial, Connector::listen);
        if self.listen.is_none() && self.connect.is_empty() {
            checking.wrong("", "it neither listens nor dials: say `listen`, `connect`, or leave `[links]` out");
        }
        if let Some(address) = &self.listen {
            checking.accept("listen", check_address(address));
        }
        let mut dialled = BTreeSet::new();
        checking.each_of("connect", &self.connect, |address, checking| {
            checking.accept("", check_address(address));
            if !dialled.insert(address.clone()) {
                checking.wrong("", format!("`{address}` is there twice"));
            }
        });
        checking.each_of("expects", &self.expects, |name, checking| {
            checking.accept("", NodeName::new(name));
            if name == node {
                checking.wrong("", "a node does not wait for itself");
            }
        });
        connector = self.connect.iter().fold(connector, |connector, address| connector.connect(address));
        match &self.identity {
            None => checking.wrong(
                "",
                format!("it lacks `identity`: a folder made by `edri keys node AUTHORITY {node}`, after `edri keys init AUTHORITY`"),
            ),
            Some(folder) => {
                let folder = checking.path(folder);
                let identity = checking.accept("identity", keys::Identity::open(&folder));
                if let Some(other) = identity.map(|identity| identity.node().clone()).filter(|name| name.as_str() != node) {
                    let message = format!("it is that of node `{other}`, and this node is called `{node}`");
                    checking.wrong("identity", message);
                }
                connector = connector.identity(folder);
            }
        }
        if self.outbox == 0 || self.outbox > edri::INBOX_CAPACITY_MAX {
            checking.wrong("outbox", format!("an outbox has 1 to {} places", edri::INBOX_CAPACITY_MAX));
        }
        if self.switch {
            connector = connector.switch();
        }
        let options = checking.within("transport", |checking| self.transport.build(checking));
        (connector.expiry(self.expiry.into()).outbox(self.outbox).options(options), self.expects.clone())
    }
}

/// A host and a port. Whether the host has an address is seen when it is needed.
fn check_address(address: &str) -> Result<(), String> {
    let (host, port) = address.rsplit_once(':').unwrap_or_default();
    if host.is_empty() || port.parse::<u16>().is_err() || (host.contains(':') && !host.starts_with('[')) {
        return Err(format!("`{address}` is no address: write it like `[::]:7440` or `north.example:7440`"));
    }
    Ok(())
}
