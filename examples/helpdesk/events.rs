//! What is said at the help desk, and which page a browser gets for it.

use bytes::Bytes;
use edri::prelude::*;

/// What somebody needs help with.
#[data]
#[derive(Clone)]
pub(crate) struct Ticket {
    pub(crate) id: u64,
    pub(crate) subject: String,
    pub(crate) text: String,
    pub(crate) owner: String,
    pub(crate) opened: String,
    pub(crate) is_open: bool,
    /// What it is about, once the classifier has said so.
    pub(crate) topic: Option<String>,
    pub(crate) replies: Vec<Reply>,
    pub(crate) files: Vec<File>,
}

#[data]
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) author: String,
    pub(crate) text: String,
    pub(crate) at: String,
}

/// A file that was sent with a ticket.
#[data]
#[derive(Clone)]
pub(crate) struct File {
    pub(crate) number: i64,
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

/// Which tickets are there? Customers see their own.
#[event(request, name = "ticket.list", response = Tickets, http = "GET /", page = "tickets.html", cache = "1h",
        stale_on = "ticket.changed")]
pub(crate) struct ListTickets {
    #[serde(default)]
    pub(crate) closed: bool,
}

#[data]
pub(crate) struct Tickets {
    pub(crate) tickets: Vec<Ticket>,
}

#[event(request, name = "ticket.show", key = id, response = Ticket, http = "GET /tickets/{id}", page = "ticket.html",
        cache = "1h", stale_on = "ticket.changed")]
pub(crate) struct ShowTicket {
    pub(crate) id: u64,
}

#[event(request, name = "ticket.open", response = Ticket, http = "POST /tickets", form = "new.html", then = "/tickets/{id}")]
pub(crate) struct OpenTicket {
    #[validate(length(min = 3, max = 120))]
    pub(crate) subject: String,
    #[validate(length(min = 1, max = 10_000))]
    pub(crate) text: String,
}

#[event(request, name = "ticket.reply", response = Ticket, http = "POST /tickets/{id}/replies", then = "/tickets/{id}")]
pub(crate) struct ReplyTicket {
    pub(crate) id: u64,
    #[validate(length(min = 1, max = 10_000))]
    pub(crate) text: String,
    /// Whether that was it.
    pub(crate) close: bool,
}

/// A file of any size that the gateway lets through goes up chunk by chunk.
#[event(tunnel, name = "ticket.upload", up = Bytes, down = (), result = File, http = "POST /tickets/{id}/files", then = "/tickets/{id}")]
pub(crate) struct Upload {
    pub(crate) id: u64,
    /// The name that the browser says, of the form's field `file`.
    #[validate(length(max = 200))]
    pub(crate) file_name: String,
}

#[event(tunnel, name = "ticket.download", up = (), down = HttpPart, http = "GET /tickets/{id}/files/{number}")]
pub(crate) struct Download {
    pub(crate) id: u64,
    pub(crate) number: i64,
}

/// Somebody needs help. The worker in `classify.py` says what with.
#[event(notification, name = "ticket.opened", key = id)]
pub(crate) struct TicketOpened {
    pub(crate) id: u64,
    pub(crate) subject: String,
    pub(crate) text: String,
}

/// What other workers have to say of a ticket: the classifier its topic, the writer of files that one is there.
#[event(request, name = "ticket.amend", response = Ticket)]
pub(crate) struct AmendTicket {
    pub(crate) id: u64,
    #[serde(default)]
    pub(crate) topic: Option<String>,
    #[serde(default)]
    pub(crate) file: Option<File>,
}

/// Pages that show the ticket are stale. It says no more: whoever hears it may not be allowed to see the ticket.
#[event(notification, name = "ticket.changed", key = id, expose)]
pub(crate) struct TicketChanged {
    pub(crate) id: u64,
}

/// Sums the day up; sent by the scheduler every night, and by agents.
#[event(request, name = "digest.write", response = Digest, http = "POST /digest", then = "/digest")]
pub(crate) struct WriteDigest {}

#[event(request, name = "digest.show", response = Option<Digest>, http = "GET /digest", page = "digest.html")]
pub(crate) struct ShowDigest {}

#[data]
pub(crate) struct Digest {
    pub(crate) written: String,
    pub(crate) open: usize,
    pub(crate) closed: usize,
    /// How many open tickets there are of each topic.
    pub(crate) topics: std::collections::BTreeMap<String, usize>,
}

#[event(request, name = "door.enter", response = Http<Option<String>>, http = "POST /login", form = "login.html", then = "/")]
pub(crate) struct Enter {
    pub(crate) name: String,
    pub(crate) password: String,
}

#[event(request, name = "door.leave", response = Http<Option<String>>, http = "POST /logout", then = "/login")]
pub(crate) struct Leave {}
