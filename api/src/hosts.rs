//! Under which names a gateway is reached.
//!
//! A page can have its own name lead to `127.0.0.1` (DNS rebinding): then its origin is the gateway's, as far as a browser can tell, and
//! it reads what only this machine should. What gives it away is the name in `Host`.

use std::net::{IpAddr, SocketAddr};

use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{StatusCode, header};

use crate::ApiError;
use crate::problem::Problem;

/// The most names that can be listed.
const HOSTS_MAX: usize = 1_024;

/// The names under which requests are answered.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    /// In small letters. None, and no name is looked at.
    names: Option<Vec<String>>,
}

impl Hosts {
    /// Those that are listed, and what always leads to an address of this machine. Without a list names are looked at only where
    /// somebody without a token may do something, at an address that only this machine reaches.
    ///
    /// # Errors
    ///
    /// When one of the names is none.
    pub(crate) fn new(listed: &[String], bound: SocketAddr, lets_anonymous: bool) -> Result<Self, ApiError> {
        if listed.len() > HOSTS_MAX {
            return Err(ApiError::Host(format!("{} names are more than {HOSTS_MAX}", listed.len())));
        }
        if let Some(wrong) = listed.iter().find(|name| !is_name(name)) {
            return Err(ApiError::Host(format!(
                "`{wrong}` is no name of a host: write it like `api.example`, without a scheme, a port or a path"
            )));
        }
        let looked_at = !listed.is_empty() || (lets_anonymous && bound.ip().is_loopback());
        let names = listed.iter().map(|name| name.to_ascii_lowercase());
        Ok(Self { names: looked_at.then(|| names.collect()) })
    }

    /// Refuses a request for another host. One without a name comes from no browser.
    ///
    /// # Errors
    ///
    /// 421.
    pub(crate) fn check(&self, head: &Parts) -> Result<(), Problem> {
        let Some(names) = &self.names else { return Ok(()) };
        let named = head.headers.get(header::HOST).map(|host| host.to_str().unwrap_or("?"));
        let Some(authority) = head.uri.authority().map(Authority::as_str).or(named) else { return Ok(()) };
        let host = without_port(authority);
        if host == "localhost" {
            return Ok(());
        }
        let host = host.to_ascii_lowercase();
        let host = host.trim_end_matches('.');
        if is_of_this_machine(host) || names.iter().any(|name| name == host) {
            return Ok(());
        }
        let shown: String = host.chars().take(200).collect();
        let detail = format!(
            "this gateway is not `{shown}`: use its address or `localhost`, or its owner allows the name with `Api::hosts`"
        );
        Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "wrong_host", detail))
    }
}

fn is_name(name: &str) -> bool {
    let is_name =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    name.parse::<IpAddr>().is_ok() || name.split('.').all(is_name)
}

/// Names that no resolver leads elsewhere, and addresses: a page cannot have one of those as its name.
fn is_of_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.ends_with(".localhost") || address.parse::<IpAddr>().is_ok()
}

/// `host`, `host:80`, `[::1]:80`.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn answered(hosts: &Hosts, host: &str) -> bool {
        let (head, ()) = Request::get("/").header("host", host).body(()).expect("a request").into_parts();
        hosts.check(&head).is_ok()
    }

    #[test]
    fn a_name_that_leads_to_this_machine_is_not_this_machine() {
        let local = "127.0.0.1:80".parse().expect("an address");
        let hosts = Hosts::new(&[], local, true).expect("hosts");
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "app.localhost",
            "127.0.0.1:1",
            "[::1]:80",
            "[::1]",
            "127.0.0.2",
            "localhost.",
        ] {
            assert!(answered(&hosts, host), "{host}");
        }
        for host in
            ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", "xlocalhost", ""]
        {
            assert!(!answered(&hosts, host), "{host}");
        }
        let (head, ()) = Request::get("/").body(()).expect("a request").into_parts();
        assert!(hosts.check(&head).is_ok(), "no browser sends such a request");
        let (head, ()) = Request::get("http://evil.example/").body(()).expect("a request").into_parts();
        assert!(hosts.check(&head).is_err(), "as HTTP/2 says it");
    }

    #[test]
    fn names_are_looked_at_where_there_is_something_to_protect_or_they_are_listed() {
        let (local, any) = ("[::1]:80".parse().expect("an address"), "0.0.0.0:80".parse().expect("an address"));
        let listed = ["API.example".to_owned()];
        let checks =
            |listed: &[String], bound, open| !answered(&Hosts::new(listed, bound, open).expect("hosts"), "other");
        assert!(checks(&[], local, true));
        assert!(!checks(&[], local, false), "a page has no token");
        assert!(!checks(&[], any, true), "what others reach is reached without a trick");
        assert!(checks(&listed, any, false));
        assert!(answered(&Hosts::new(&listed, local, true).expect("hosts"), "api.Example:8080"));
        for wrong in ["http://a", "a:80", "a/b", "", "a..b", "*"] {
            assert!(Hosts::new(&[wrong.to_owned()], local, true).is_err(), "{wrong}");
        }
    }
}
