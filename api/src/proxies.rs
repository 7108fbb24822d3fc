//! Proxies in front of a gateway, whose word is taken for who the client is.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, header};

use crate::ApiError;

/// The most addresses that can be listed.
const PROXIES_MAX: usize = 1_024;
/// The most hops that are looked at: what is before them is not known.
const HOPS_MAX: usize = 64;
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Proxies in front of a gateway that say in a header who their client is. Its address then counts in limits, in the access log and for who may
/// read the metrics. A connection of anybody else is what it is, whatever its headers say.
///
/// There is one header: a proxy that sets one of the two lets the other through as its client wrote it.
///
/// ```
/// # use edri_api::Proxies;
/// let proxies = Proxies::x_forwarded_for(["127.0.0.1", "10.0.0.0/8"]);
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Proxies {
    listed: Vec<String>,
    header: HeaderName,
}

impl Proxies {
    /// These set `X-Forwarded-For`, or add to it. Addresses, or networks such as `10.0.0.0/8`.
    pub fn x_forwarded_for<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Self {
        Self::new(addresses, X_FORWARDED_FOR)
    }

    /// These set `Forwarded` (RFC 7239), or add to it. Addresses, or networks such as `10.0.0.0/8`.
    pub fn forwarded<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Self {
        Self::new(addresses, header::FORWARDED)
    }

    fn new<'a>(addresses: impl IntoIterator<Item = &'a str>, header: HeaderName) -> Self {
        Self { listed: addresses.into_iter().map(str::to_owned).collect(), header }
    }

    /// Whether a gateway would take them.
    ///
    /// # Errors
    ///
    /// [`ApiError::Proxy`] for what is no address, and for too many.
    pub fn check(&self) -> Result<(), ApiError> {
        self.clone().trusted().map(drop)
    }

    pub(crate) fn trusted(self) -> Result<Trusted, ApiError> {
        let Self { listed, header } = self;
        if listed.len() > PROXIES_MAX {
            return Err(ApiError::Proxy(format!("{} addresses of proxies are more than {PROXIES_MAX}", listed.len())));
        }
        let wrong = |text: &String| {
            ApiError::Proxy(format!(
                "`{text}` is neither an address nor a network: write it like `10.0.0.1` or `10.0.0.0/8`"
            ))
        };
        let networks = listed.iter().map(|text| Network::parse(text).ok_or_else(|| wrong(text)));
        Ok(Trusted { networks: networks.collect::<Result<_, _>>()?, header })
    }
}

/// Whose word is taken.
#[derive(Debug)]
pub(crate) struct Trusted {
    networks: Vec<Network>,
    header: HeaderName,
}

impl Trusted {
    pub(crate) fn is_proxy(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.has(address))
    }

    /// Who the client is of a request that came from this address: the last hop that is no proxy of ours. What a hop says that is one is
    /// believed, what others say is not; where a proxy names nobody, it is the client itself.
    pub(crate) fn client(&self, remote: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        let mut client = remote;
        let lines = headers.get_all(&self.header).iter().rev();
        let hops = lines.flat_map(|line| line.to_str().unwrap_or("?").rsplit(','));
        for hop in hops.take(HOPS_MAX) {
            if !self.is_proxy(client.ip()) {
                break;
            }
            let named = if self.header == header::FORWARDED { of_forwarded(hop) } else { address(hop.trim()) };
            let Some(named) = named else { break };
            client = named;
        }
        client
    }
}

/// `for=192.0.2.43`, `For="[2001:db8::17]:4711";proto=https`.
fn of_forwarded(element: &str) -> Option<SocketAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let mut named = pairs.filter(|(name, _)| name.eq_ignore_ascii_case("for"));
    address(named.next()?.1.trim_matches('"'))
}

/// An address, with its port or without.
fn address(text: &str) -> Option<SocketAddr> {
    let alone = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    text.parse().ok().or_else(|| alone.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 0)))
}

/// All addresses that begin with these bits.
#[derive(Debug, Clone, Copy)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Self { address, bits })
    }

    fn has(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differ = u32::from(network) ^ u32::from(address);
                differ.leading_zeros() >= self.bits
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differ = u128::from(network) ^ u128::from(address);
                differ.leading_zeros() >= self.bits
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(proxies: Proxies, from: &str, lines: &[&str]) -> String {
        let trusted = proxies.trusted().expect("addresses");
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(trusted.header.clone(), line.parse().expect("a value"));
        }
        trusted.client(SocketAddr::new(from.parse().expect("an address"), 9), &headers).ip().to_string()
    }

    #[test]
    fn a_header_counts_as_far_as_proxies_that_are_trusted_have_written_it() {
        let of = |from: &str, lines: &[&str]| client(Proxies::x_forwarded_for(["10.0.0.0/8", "::1"]), from, lines);
        assert_eq!(of("192.0.2.1", &["198.51.100.7"]), "192.0.2.1", "anybody can write that");
        assert_eq!(of("10.1.2.3", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(of("::1", &["203.0.113.9, 198.51.100.7"]), "198.51.100.7", "the first was written by the client");
        assert_eq!(of("10.1.2.3", &["203.0.113.9", "198.51.100.7, 10.9.9.9"]), "198.51.100.7", "two of our proxies");
        assert_eq!(of("10.1.2.3", &["203.0.113.9", "who knows"]), "10.1.2.3", "what it says names nobody");
        assert_eq!(of("10.1.2.3", &[]), "10.1.2.3");
        assert_eq!(of("10.1.2.3", &["10.4.4.4, 10.5.5.5"]), "10.4.4.4", "a client within");
        assert_eq!(of("10.1.2.3", &["[2001:db8::17]:4711"]), "2001:db8::17");
        assert_eq!(of("10.1.2.3", &["198.51.100.7:1234"]), "198.51.100.7");
        assert_eq!(of("::ffff:10.1.2.3", &["2001:db8::17"]), "2001:db8::17", "IPv4 however it is written");
        let forwarded = |lines: &[&str]| client(Proxies::forwarded(["10.0.0.0/8"]), "10.1.2.3", lines);
        assert_eq!(
            forwarded(&["for=203.0.113.9, For=\"[2001:db8::17]:4711\";proto=https;by=10.1.2.3"]),
            "2001:db8::17"
        );
        assert_eq!(forwarded(&["for=203.0.113.9;host=a", "for=unknown"]), "10.1.2.3");
    }

    #[test]
    fn networks_are_of_whole_bits() {
        let has = |network: &str, address: &str| {
            Network::parse(network).expect("a network").has(address.parse().expect("an address"))
        };
        assert!(has("10.128.0.0/9", "10.255.0.1") && !has("10.128.0.0/9", "10.127.0.1"));
        assert!(has("0.0.0.0/0", "1.2.3.4") && !has("0.0.0.0/0", "::1"));
        assert!(has("10.0.0.1", "10.0.0.1") && !has("10.0.0.1", "10.0.0.2"));
        assert!(has("2001:db8::/32", "2001:db8:1::1") && !has("2001:db8::/32", "2001:db9::1"));
        for wrong in ["10.0.0.0/33", "10.0.0", "a", "::/129", "10.0.0.0/", "10.0.0.0/-1", ""] {
            assert!(Network::parse(wrong).is_none(), "{wrong}");
        }
    }
}
