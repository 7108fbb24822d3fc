//! How many requests each client has under way and sends in a second. Pure: what time it is comes in.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{ApiLimits, Caller};

/// The most clients that are told apart. Those beyond it are as one.
const CLIENTS_MAX: usize = 65_536;
/// How often the table is looked through for clients that are forgotten, at most.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// Who is bound by a limit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// Who has a token.
    Caller(Arc<str>),
    /// Somebody at this address.
    Address(IpAddr),
}

impl Client {
    /// Whom a caller's requests count for: itself, or its address when it is not known who it is.
    pub(crate) fn of(caller: &Caller, address: IpAddr) -> Self {
        caller.shared_name().map_or_else(|| Self::Address(bound_address(address)), Self::Caller)
    }
}

/// The address that limits go by: a whole network of 64 bits is one client's, and IPv4 is IPv4 however it is written.
pub(crate) fn bound_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Why a request is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooMany {
    /// In a second; after this time there is room for another.
    Requests(Duration),
    /// At a time.
    InFlight,
}

/// A request that is under way, to be given back.
#[derive(Debug)]
#[must_use]
pub(crate) struct Begun(Option<Client>);

#[derive(Debug)]
struct Record {
    /// Requests that may be sent at once.
    room: f64,
    at: Instant,
    in_flight: usize,
}

/// All clients that had requests lately.
#[derive(Debug)]
pub(crate) struct Clients {
    table: HashMap<Client, Record>,
    /// All for whom there was no place.
    others: Record,
    max: usize,
    rate: Option<f64>,
    burst: f64,
    in_flight_max: usize,
    swept: Option<Instant>,
}

impl Clients {
    pub(crate) fn new(limits: &ApiLimits, now: Instant) -> Self {
        let burst = f64::from(limits.request_burst.max(1));
        Self {
            table: HashMap::new(),
            others: Record { room: burst, at: now, in_flight: 0 },
            max: CLIENTS_MAX,
            rate: limits.requests_per_second.map(|rate| f64::from(rate.max(1))),
            burst,
            in_flight_max: limits.in_flight_per_client,
            swept: None,
        }
    }

    /// A client sends a request.
    pub(crate) fn begin(&mut self, client: Client, now: Instant) -> Result<Begun, TooMany> {
        let (rate, burst, in_flight_max) = (self.rate, self.burst, self.in_flight_max);
        let (record, is_known) = self.record(&client, now);
        if record.in_flight >= in_flight_max {
            return Err(TooMany::InFlight);
        }
        if let Some(rate) = rate {
            record.take(now, rate, burst).map_err(TooMany::Requests)?;
        }
        record.in_flight += 1;
        Ok(Begun(is_known.then_some(client)))
    }

    /// A client sends something that counts as a request in its rate, and for whose end nobody waits here.
    ///
    /// # Errors
    ///
    /// How long it has to wait.
    pub(crate) fn charge(&mut self, client: &Client, now: Instant) -> Result<(), Duration> {
        let (Some(rate), burst) = (self.rate, self.burst) else { return Ok(()) };
        self.record(client, now).0.take(now, rate, burst)
    }

    /// What is known of a client, and whether it has a record of its own.
    fn record(&mut self, client: &Client, now: Instant) -> (&mut Record, bool) {
        if self.table.len() >= self.max && !self.table.contains_key(client) {
            self.sweep(now);
        }
        if self.table.len() >= self.max && !self.table.contains_key(client) {
            return (&mut self.others, false);
        }
        let fresh = Record { room: self.burst, at: now, in_flight: 0 };
        (self.table.entry(client.clone()).or_insert(fresh), true)
    }

    /// A request ends.
    pub(crate) fn end(&mut self, begun: Begun) {
        let Begun(client) = begun;
        match client {
            None => self.others.in_flight = self.others.in_flight.saturating_sub(1),
            Some(client) => {
                let Entry::Occupied(mut record) = self.table.entry(client) else { return };
                record.get_mut().in_flight = record.get().in_flight.saturating_sub(1);
                // Without a rate there is nothing else to remember.
                if record.get().in_flight == 0 && self.rate.is_none() {
                    record.remove();
                }
            }
        }
    }

    /// Forgets clients of whom nothing has to be known.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|at| now.saturating_duration_since(at) < SWEEP_PAUSE) {
            return;
        }
        self.swept = Some(now);
        let (rate, burst) = (self.rate, self.burst);
        self.table.retain(|_, record| {
            if let Some(rate) = rate {
                record.refill(now, rate, burst);
            }
            record.in_flight > 0 || record.room < burst
        });
    }
}

impl Record {
    /// Takes the room of one request.
    fn take(&mut self, now: Instant, rate: f64, burst: f64) -> Result<(), Duration> {
        self.refill(now, rate, burst);
        if self.room < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.room) / rate));
        }
        self.room -= 1.0;
        Ok(())
    }

    fn refill(&mut self, now: Instant, rate: f64, burst: f64) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.room = (self.room + passed * rate).min(burst);
        // Threads look at the clock before they come here, not always in that order.
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> Client {
        Client::Address(IpAddr::from(number.to_be_bytes()))
    }

    fn clients(rate: Option<u32>, burst: u32, in_flight: usize) -> (Clients, Instant) {
        let now = Instant::now();
        let limits = ApiLimits {
            requests_per_second: rate,
            request_burst: burst,
            in_flight_per_client: in_flight,
            ..ApiLimits::default()
        };
        (Clients::new(&limits, now), now)
    }

    #[test]
    fn a_client_may_send_a_burst_and_then_its_rate_and_is_told_when_to_come_again() {
        let (mut clients, start) = clients(Some(10), 5, 100);
        let mut sent = 0;
        for millis in 0..10_000 {
            let now = start + Duration::from_millis(millis);
            match clients.begin(client(1), now) {
                Ok(begun) => (sent, ()) = (sent + 1, clients.end(begun)),
                Err(TooMany::Requests(wait)) => {
                    assert!(clients.begin(client(1), now + wait / 2).is_err());
                    assert!(wait <= Duration::from_millis(100), "{wait:?}");
                }
                Err(TooMany::InFlight) => panic!("nothing is in flight"),
            }
        }
        assert!((104..=105).contains(&sent), "5 at once and 10 a second for 10 s: {sent}");
        assert!(clients.begin(client(2), start).is_ok(), "another client is not bound by it");
    }

    #[test]
    fn a_client_has_so_many_requests_under_way_and_no_more() {
        let (mut clients, now) = clients(None, 1, 2);
        let first = clients.begin(client(1), now).expect("room");
        let _second = clients.begin(client(1), now).expect("room");
        assert_eq!(clients.begin(client(1), now).expect_err("no room"), TooMany::InFlight);
        let other = clients.begin(client(2), now).expect("another's room");
        clients.end(first);
        let _third = clients.begin(client(1), now).expect("room again");
        clients.end(other);
        assert_eq!(clients.table.len(), 1, "whoever has nothing under way is forgotten");
    }

    #[test]
    fn the_table_is_bounded_and_whoever_finds_no_place_shares_one() {
        let (mut clients, now) = clients(Some(1), 2, 100);
        clients.max = 10;
        for number in 0..10 {
            let begun = clients.begin(client(number), now).expect("room");
            clients.end(begun);
        }
        let sent = (100..200).filter_map(|number| clients.begin(client(number), now).ok()).count();
        assert_eq!((sent, clients.table.len()), (2, 10));
        // Those who have been quiet make room.
        let later = now + Duration::from_secs(10);
        let begun = clients.begin(client(300), later).expect("room");
        assert_eq!((begun.0.is_some(), clients.table.len()), (true, 1));
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let bound = |text: &str| bound_address(text.parse().expect("an address"));
        assert_eq!(bound("2001:db8:1:2:3::4"), bound("2001:db8:1:2:ffff::1"));
        assert_ne!(bound("2001:db8:1:2::1"), bound("2001:db8:1:3::1"));
        assert_eq!(bound("::ffff:10.0.0.1"), bound("10.0.0.1"));
    }
}
