//! A help desk: tickets in a store, pages for browsers with and without scripts, a worker in Python that classifies, a digest every night.

mod desk;
mod door;
mod events;
mod files;

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use edri::prelude::*;
use edri::scheduler::Missed;
use edri::{ApiLimits, Sessions};

use crate::desk::Desk;
use crate::door::Door;
use crate::events::*;
use crate::files::Files;

/// Where the example's files are.
const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/helpdesk");
/// The longest file that somebody may send, in bytes.
const FILE_BYTES_MAX: usize = 5 << 20;

#[derive(Parser)]
struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: String,
    /// The folder in which tickets, sessions and files are kept.
    #[arg(long, default_value = "helpdesk-data")]
    data: PathBuf,
    /// When the digest is written, as cron says it.
    #[arg(long, default_value = "0 2 * * *")]
    digest: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().with_writer(io::stderr).with_max_level(tracing::Level::WARN).init();
    app(&arguments)?.run_with(async |node: Node| {
        if let Some(address) = node.api_address() {
            writeln!(io::stderr(), "the help desk is open at http://{address}/ for anna, carl and dora")?;
        }
        Ok::<_, Box<dyn Error>>(())
    })?;
    Ok(())
}

fn app(arguments: &Arguments) -> Result<App, Box<dyn Error>> {
    let Arguments { listen, data, digest } = arguments;
    let folder = data.join("files");
    std::fs::create_dir_all(&folder)?;
    let desk = Manager::new("desk")
        .worker(|| Desk)
        .handles::<ListTickets>()
        .handles::<ShowTicket>()
        .handles::<OpenTicket>()
        .handles::<ReplyTicket>()
        .handles::<AmendTicket>()
        .handles::<WriteDigest>()
        .handles::<ShowDigest>();
    let files = Manager::new("files")
        .worker(move || Files { folder: folder.clone() })
        .handles_concurrently::<Upload>()
        .handles_concurrently::<Download>();
    let door = Manager::new("door").worker(|| Door).handles::<Enter>().handles::<Leave>();
    let store = ["tickets", "numbers", "digests", "sessions"];
    let store = store.into_iter().fold(Store::open(data.join("store")), Store::namespace);
    let nightly = Entry::cron(digest, WriteDigest {}).id("digest").missed(Missed::Once);
    let app = App::new("helpdesk")
        .manager(store)
        .manager(desk)
        .manager(files)
        .manager(door)
        .manager(Scheduler::new().entry(nightly))
        .history("ticket.changed", History::new())
        .api(gateway(listen, data));
    match classifier() {
        Ok(command) => Ok(app.manager(Manager::program("classifier", &command))),
        Err(why) => {
            writeln!(io::stderr(), "tickets are not classified: {why}")?;
            Ok(app)
        }
    }
}

fn gateway(listen: &str, data: &Path) -> Api {
    let here = Path::new(HERE);
    let pages = Pages::folder(here.join("pages"))
        .assets(here.join("static"))
        .page("/new", "new.html")
        .page("/login", "login.html");
    let secret = data.join("secret");
    let sessions = if secret.exists() { Sessions::new().secret_file(secret) } else { Sessions::new() };
    let mut limits = ApiLimits::default();
    limits.upload_bytes = FILE_BYTES_MAX;
    Api::bind(listen).pages(pages).sessions(sessions).access(door::access()).limits(limits).event::<TicketChanged>()
}

/// The command that runs `classify.py`, in an environment that has the SDK, which is made the first time.
fn classifier() -> Result<String, Box<dyn Error>> {
    let program = std::env::current_exe()?;
    let target =
        program.ancestors().nth(3).ok_or("the program is not where cargo has put it: start it by `cargo run`")?;
    let made = Command::new("python3")
        .arg(Path::new(HERE).join("../../sdk/python/environment.py"))
        .arg(target.join("helpdesk-python"))
        .output()
        .map_err(|error| format!("`python3` cannot be started ({error}): install Python 3.9 or later"))?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).trim().into());
    }
    let python = String::from_utf8(made.stdout)?;
    Ok(format!("'{}' '{HERE}/classify.py'", python.trim()))
}
