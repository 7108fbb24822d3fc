//! Hosts of their own on one machine: network namespaces, each joined to that of the switch by a cable of its own.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Network namespaces. They are gone when this is dropped, also when a test fails.
pub(crate) struct Hosts {
    prefix: String,
    count: usize,
}

/// Runs `ip` with these words.
fn ip(words: &str) -> Result<(), String> {
    let output = Command::new("ip").args(words.split(' ')).output().map_err(|error| format!("`ip`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("`ip {words}`: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

impl Hosts {
    /// So many hosts around one for the switch.
    ///
    /// # Errors
    ///
    /// Why this machine has none: they need root and the program `ip` (package `iproute2`).
    pub(crate) fn around_a_switch(count: usize) -> Result<Self, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let hosts = Self { prefix: format!("edri-{}-{number}", std::process::id()), count };
        let switch = hosts.switch();
        ip(&format!("netns add {switch}"))?;
        ip(&format!("-n {switch} link set lo up"))?;
        for index in 0..count {
            let host = hosts.host(index);
            ip(&format!("netns add {host}"))?;
            ip(&format!("-n {switch} link add cable{index} type veth peer name eth0 netns {host}"))?;
            ip(&format!("-n {switch} addr add {}/24 dev cable{index}", hosts.gateway(index)))?;
            ip(&format!("-n {switch} link set cable{index} up"))?;
            ip(&format!("-n {host} link set lo up"))?;
            ip(&format!("-n {host} link set eth0 up"))?;
            hosts.address(index, None, 2)?;
        }
        Ok(hosts)
    }

    /// The namespace of the switch.
    pub(crate) fn switch(&self) -> String {
        format!("{}-switch", self.prefix)
    }

    /// The namespace of this host.
    pub(crate) fn host(&self, index: usize) -> String {
        format!("{}-{index}", self.prefix)
    }

    /// The address of the switch at the cable of this host.
    pub(crate) fn gateway(&self, index: usize) -> String {
        format!("10.77.{index}.1")
    }

    /// Gives a host the address that ends so, in place of the one that ended so.
    ///
    /// # Errors
    ///
    /// What `ip` says.
    pub(crate) fn address(&self, index: usize, from: Option<u8>, to: u8) -> Result<(), String> {
        let host = self.host(index);
        if let Some(from) = from {
            ip(&format!("-n {host} addr del 10.77.{index}.{from}/24 dev eth0"))?;
        }
        ip(&format!("-n {host} addr add 10.77.{index}.{to}/24 dev eth0"))
    }

    /// Pulls the cable of a host, or plugs it in.
    ///
    /// # Errors
    ///
    /// What `ip` says.
    pub(crate) fn cable(&self, index: usize, up: bool) -> Result<(), String> {
        let state = if up { "up" } else { "down" };
        ip(&format!("-n {} link set cable{index} {state}", self.switch()))
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        // Those that were never made are not there.
        for host in (0..self.count).map(|index| self.host(index)).chain([self.switch()]) {
            let _ = ip(&format!("netns del {host}"));
        }
    }
}
