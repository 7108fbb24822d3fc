//! Who keeps the tickets: one worker, so that nobody changes a ticket between its reading and its writing. They are in the store.

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use edri::prelude::*;

use crate::door::{is_agent, who};
use crate::events::*;

/// The most tickets that are read for a list or a digest.
const LISTED_MAX: usize = 1_000;

pub(crate) struct Desk;

impl Worker for Desk {}

impl Handle<ListTickets> for Desk {
    async fn handle(&mut self, list: &ListTickets, cx: &mut Context) -> Result<Tickets, Failure> {
        let caller = who(cx)?;
        let mut tickets = all(cx).await?;
        tickets.retain(|ticket| ticket.is_open != list.closed && (is_agent(caller) || ticket.owner == caller));
        tickets.reverse();
        Ok(Tickets { tickets })
    }
}

impl Handle<ShowTicket> for Desk {
    async fn handle(&mut self, show: &ShowTicket, cx: &mut Context) -> Result<Ticket, Failure> {
        let caller = who(cx)?;
        find(cx, show.id, Some(caller)).await
    }
}

impl Handle<OpenTicket> for Desk {
    async fn handle(&mut self, open: &OpenTicket, cx: &mut Context) -> Result<Ticket, Failure> {
        let (subject, text, owner) = (open.subject.clone(), open.text.clone(), who(cx)?.to_owned());
        let id = Namespace::<i64>::new(cx.bus(), "numbers").increment("ticket", 1).await? as u64;
        let (topic, replies, files) = Default::default();
        let ticket = Ticket { id, subject, text, owner, opened: now(), is_open: true, topic, replies, files };
        let Ticket { subject, text, .. } = save(cx, &ticket).await?;
        cx.publish(TicketOpened { id, subject, text }).await?;
        Ok(ticket)
    }
}

impl Handle<ReplyTicket> for Desk {
    async fn handle(&mut self, reply: &ReplyTicket, cx: &mut Context) -> Result<Ticket, Failure> {
        let author = who(cx)?.to_owned();
        let mut ticket = find(cx, reply.id, Some(&author)).await?;
        ticket.is_open = !reply.close;
        ticket.replies.push(Reply { author, text: reply.text.clone(), at: now() });
        save(cx, &ticket).await
    }
}

impl Handle<AmendTicket> for Desk {
    async fn handle(&mut self, amend: &AmendTicket, cx: &mut Context) -> Result<Ticket, Failure> {
        let mut ticket = find(cx, amend.id, None).await?;
        ticket.topic = amend.topic.clone().or(ticket.topic);
        ticket.files.extend(amend.file.clone());
        save(cx, &ticket).await
    }
}

impl Handle<WriteDigest> for Desk {
    async fn handle(&mut self, _: &WriteDigest, cx: &mut Context) -> Result<Digest, Failure> {
        let (open, closed): (Vec<_>, Vec<_>) = all(cx).await?.into_iter().partition(|ticket| ticket.is_open);
        let mut digest = Digest { written: now(), open: open.len(), closed: closed.len(), topics: Default::default() };
        for ticket in open {
            *digest.topics.entry(ticket.topic.unwrap_or_else(|| "other".to_owned())).or_default() += 1;
        }
        Namespace::new(cx.bus(), "digests").set("last", &digest).await?;
        Ok(digest)
    }
}

impl Handle<ShowDigest> for Desk {
    async fn handle(&mut self, _: &ShowDigest, cx: &mut Context) -> Result<Option<Digest>, Failure> {
        Ok(Namespace::new(cx.bus(), "digests").get("last").await?)
    }
}

fn tickets(cx: &Context) -> Namespace<Ticket> {
    Namespace::new(cx.bus(), "tickets")
}

async fn all(cx: &Context) -> Result<Vec<Ticket>, Failure> {
    let page = tickets(cx).list("", None, LISTED_MAX).await?;
    Ok(page.items.into_iter().map(|item| item.value).collect())
}

/// The ticket, if this caller may see it.
pub(crate) async fn find(cx: &Context, id: u64, caller: Option<&str>) -> Result<Ticket, Failure> {
    let ticket = tickets(cx).get(&key(id)).await?;
    let ticket = ticket.filter(|ticket| caller.is_none_or(|caller| is_agent(caller) || ticket.owner == caller));
    ticket.ok_or_else(|| Failure::new("not_found", format!("there is no ticket {id}, or it is somebody else's")))
}

/// Keeps the ticket, and tells whoever shows it.
async fn save(cx: &Context, ticket: &Ticket) -> Result<Ticket, Failure> {
    tickets(cx).set(&key(ticket.id), ticket).await?;
    cx.publish(TicketChanged { id: ticket.id }).await?;
    Ok(ticket.clone())
}

/// In the order of their numbers.
fn key(id: u64) -> String {
    format!("{id:010}")
}

fn now() -> String {
    DateTime::<Utc>::from(SystemTime::now()).format("%-d %b %Y, %H:%M UTC").to_string()
}
