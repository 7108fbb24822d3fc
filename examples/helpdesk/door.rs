//! Who comes in. A desk in earnest asks its directory; this one knows three people, whose passwords are their names.

use edri::prelude::*;

use crate::events::{Enter, Leave};

/// Names and roles.
const PEOPLE: [(&str, &str); 3] = [("anna", "agent"), ("carl", "customer"), ("dora", "customer")];

/// What each role may do. The pages ask `may(..)`, so they need no list of their own.
pub(crate) fn access() -> Access {
    let customer = ["list", "show", "open", "reply", "upload", "download"];
    let customer = customer.into_iter().fold(Permissions::new().subscribe("ticket.changed"), |granted, verb| {
        granted.request(&format!("ticket.{verb}"))
    });
    let agent = customer.clone().request("digest.*");
    Access::new().anonymous(Permissions::new().request("door.*")).role("customer", customer).role("agent", agent)
}

pub(crate) struct Door;

impl Worker for Door {}

impl Handle<Enter> for Door {
    async fn handle(&mut self, enter: &Enter, _: &mut Context) -> Result<Http<Option<String>>, Failure> {
        let known = PEOPLE.iter().find(|(name, _)| *name == enter.name && enter.password == *name);
        let (name, role) = known.ok_or_else(|| Failure::new("unauthorized", "the name or the password is wrong"))?;
        Ok(Http::new(None).log_in(name, role))
    }
}

impl Handle<Leave> for Door {
    async fn handle(&mut self, _: &Leave, _: &mut Context) -> Result<Http<Option<String>>, Failure> {
        Ok(Http::new(None).log_out())
    }
}

/// Who sends the event that the worker has in hand.
pub(crate) fn who(cx: &Context) -> Result<&str, Failure> {
    cx.caller().ok_or_else(|| Failure::new("unauthorized", "log in first"))
}

pub(crate) fn is_agent(name: &str) -> bool {
    PEOPLE.contains(&(name, "agent"))
}
