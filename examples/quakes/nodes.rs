//! The example on several nodes: what each of them does.
//!
//! ```text
//!  sensor: Reader ─┐                       ┌─▶ Counter × 4, Alarm, Bulletin, Latest, store, Analyst, report.py
//!                  ├─▶ switch ─▶ centre: ──┤
//!  sensor: Reader ─┘    (only forwards)    └─▶ the findings, once no sensor has more
//! ```

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use edri::keys::Identity;
use edri::prelude::*;
use edri::{LinkState, Topology};
use tokio::time::{Instant, sleep};

use crate::arguments::{Arguments, Role, SWITCH};
use crate::events::{FeedEnded, QuakeRecorded, Replayed};
use crate::report::Findings;
use crate::{gather, keys, print, reader, say, start_report, stopped, studying, upload};

/// How many quakes wait for the centre before its sensors do, once it is out of reach.
const BACKLOG_MAX: usize = 1 << 18;
/// How often the links are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often it is said what waits while there is no way to the centre.
const SAY_EVERY: Duration = Duration::from_secs(1);
/// After so long it is said what is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs one node until its work is done, or until it is told to stop.
pub(crate) fn run(role: Role, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let identity = match &arguments.keys {
        Some(folder) => keys::open(folder)?,
        None => keys::own(arguments.name.as_deref().unwrap_or(role.name()), say)?,
    };
    let name = arguments.name.clone().unwrap_or_else(|| identity.node().to_string());
    let app = App::new(&name).connector(connector(role, arguments, identity));
    match role {
        Role::Switch => {
            app.run_with(async move |node: Node| {
                let address = node.link_address().ok_or("a switch listens")?;
                say(&format!("{name}: listens at {address}, and forwards until it is stopped"));
                Ok::<Infallible, Box<dyn Error>>(tell_of_links(node.bus(), &name).await)
            })?;
            Ok(())
        }
        Role::Sensor => {
            let fed = app.manager(reader()).run_with(async move |node: Node| {
                tokio::select! {
                    fed = feed(&node, &name, arguments) => fed?,
                    never = tell_of_links(node.bus(), &name) => match never {},
                }
                node.shutdown().await;
                Ok::<_, Box<dyn Error>>(())
            })?;
            fed.map_or_else(stopped, Ok)
        }
        Role::Centre => {
            let findings = studying(app).run_with(async move |node: Node| {
                let findings = tokio::select! {
                    findings = study(&node, &name, arguments, arguments.sensors) => findings?,
                    never = tell_of_links(node.bus(), &name) => match never {},
                };
                node.shutdown().await;
                Ok::<_, Box<dyn Error>>(findings)
            })?;
            match findings {
                Some(findings) => print(&findings, arguments.json),
                None => stopped(),
            }
        }
    }
}

fn connector(role: Role, arguments: &Arguments, identity: Identity) -> Connector {
    let listen = arguments.listen.as_deref().or((role == Role::Switch).then_some(SWITCH));
    let connector = match listen {
        Some(address) => Connector::listen(address),
        None => Connector::dial(),
    };
    let connector = if role == Role::Switch { connector.switch() } else { connector };
    let nobody = listen.is_none() && arguments.connect.is_empty();
    let neighbours = arguments.connect.iter().map(String::as_str).chain(nobody.then_some(SWITCH));
    let connector = neighbours.fold(connector, |connector, address| connector.connect(address));
    connector.outbox(BACKLOG_MAX).with_identity(identity)
}

// ---- the sensor --------------------------------------------------------------------------------------------------------

/// Publishes its part of the catalogue, and says so when all of it has arrived.
async fn feed(node: &Node, name: &str, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let bus = node.bus();
    let centre = async {
        // The centre asks for this last.
        bus.wait_for::<FeedEnded>().await?;
        bus.wait_for::<QuakeRecorded>().await
    };
    tokio::pin!(centre);
    tokio::select! {
        met = &mut centre => met?,
        () = sleep(PATIENCE) => {
            say(&format!("{name}: waits for the centre"));
            centre.await?;
        }
    }
    say(&format!("{name}: publishes {} for the centre", arguments.file.display()));
    let began = Instant::now();
    let replayed = upload(node, arguments, arguments.part, arguments.speed).await?;
    let quakes = replayed.quakes;
    arrived(bus).await?;
    let seconds = began.elapsed().as_secs_f64();
    let receipt = bus.publish(FeedEnded { sensor: name.to_owned(), replayed, seconds }).await?;
    if receipt.deliveries == 0 {
        return Err(format!("the centre has gone before {name} could say that it has no more").into());
    }
    arrived(bus).await?;
    say(&format!("{name}: published {quakes} quakes, and all of them have arrived"));
    Ok(())
}

/// Waits until everything that was published has arrived at other nodes.
async fn arrived(bus: &Bus) -> Result<(), Box<dyn Error>> {
    loop {
        let account = bus.account();
        if account.dead_lettered > 0 {
            let letters = bus.dead_letters();
            let why = letters.first().map(|letter| letter.detail.clone()).unwrap_or_default();
            return Err(format!("{} deliveries did not arrive: {why}", account.dead_lettered).into());
        }
        if account.queued + account.in_hand == 0 {
            return Ok(());
        }
        sleep(LOOK_EVERY).await;
    }
}

// ---- the centre --------------------------------------------------------------------------------------------------------

/// Waits until so many sensors have published all they have, then asks the workers what they found.
pub(crate) async fn study(
    node: &Node,
    name: &str,
    arguments: &Arguments,
    sensors: u32,
) -> Result<Findings, Box<dyn Error>> {
    let has_report = !arguments.no_python && start_report(node).await;
    // The last to be asked for: a sensor that knows of this knows of all managers.
    let mut ended = node.bus().subscribe::<FeedEnded>().await?;
    say(&format!("{name}: waits for {sensors} sensor{}", if sensors == 1 { "" } else { "s" }));
    let (mut replayed, mut seconds) = (Replayed::default(), 0_f64);
    for _ in 0..sensors {
        let feed = ended.next().await.ok_or("the node has stopped")?;
        say(&format!("{name}: {} has no more, after {} quakes", feed.sensor, feed.replayed.quakes));
        replayed.add(feed.replayed.clone());
        seconds = seconds.max(feed.seconds);
    }
    node.at_rest().await;
    gather(node, replayed, has_report, seconds).await
}

// ---- links -------------------------------------------------------------------------------------------------------------

/// Says when links come up and go down, and what waits meanwhile. Does not end.
pub(crate) async fn tell_of_links(bus: &Bus, name: &str) -> Infallible {
    let mut links = BTreeMap::new();
    let mut outage = None;
    loop {
        let topology = bus.topology();
        for link in &topology.links {
            let Some(peer) = &link.peer else { continue };
            let is_up = link.state == LinkState::Up;
            let (was_up, since_s) = links.insert(peer.clone(), (is_up, link.since_s)).unwrap_or((false, 0.0));
            // It may have gone down and come back between two looks.
            let is_another = link.since_s < since_s;
            if was_up && (!is_up || is_another) {
                let why = link.last_error.as_deref().unwrap_or("nobody said why");
                say(&format!("{name}: the link to {peer} is down: {why}"));
            }
            if is_up && (!was_up || is_another) {
                say(&format!("{name}: the link to {peer} is up"));
            }
        }
        outage = look_at_outage(name, &topology, outage);
        sleep(LOOK_EVERY).await;
    }
}

/// The centre is out of reach, or was and has not yet got all that waited.
enum Outage {
    /// There is no way, and this was said last then.
    Lasts { said: Instant },
    /// There is a way again; so many of the first deliveries had waited.
    Over { waited: u64 },
}

fn look_at_outage(name: &str, topology: &Topology, outage: Option<Outage>) -> Option<Outage> {
    let open = |group: &edri::GroupView| group.account.queued + group.account.in_hand;
    // Each quake waits once for each group that wants it.
    let quakes = topology.remote.iter().map(open).max().unwrap_or(0);
    let deliveries: u64 = topology.remote.iter().map(|group| group.account.deliveries).sum();
    let arrived = deliveries - topology.remote.iter().map(open).sum::<u64>();
    let is_cut_off = topology.remote.iter().any(|group| !group.reachable && open(group) > 0);
    match outage {
        Some(Outage::Lasts { said }) if is_cut_off && said.elapsed() < SAY_EVERY => Some(Outage::Lasts { said }),
        _ if is_cut_off => {
            say(&format!("{name}: no way to the centre, {quakes} quakes wait"));
            Some(Outage::Lasts { said: Instant::now() })
        }
        Some(Outage::Lasts { .. }) => {
            say(&format!("{name}: there is a way to the centre again, {quakes} quakes go on"));
            Some(Outage::Over { waited: deliveries })
        }
        Some(Outage::Over { waited }) if arrived >= waited => {
            say(&format!("{name}: resumed: all quakes that waited have arrived"));
            None
        }
        going_on => going_on,
    }
}
