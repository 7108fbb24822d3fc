//! Links to other nodes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use edri::{Connector, NodeName, keys};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Checking, Span};

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
        (connector.expiry(self.expiry.into()).outbox(self.outbox), self.expects.clone())
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
