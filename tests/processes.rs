//! Workers that are processes of their own: written by hand from the protocol's page, and badly behaved in every way.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use edri::prelude::*;
use edri::{ManagerState, Process, Program, Reason, WorkerState};

use crate::support::{
    Asked, Followed, LIMIT, Noted, Seen, asked, at_rest, dead_numbers, ends_well, keeps, letters, noted, started,
    until, view, within,
};

const STONE: u64 = 13;

/// The worker of `tests/foreign/worker.py`, which behaves as `how` says.
fn foreign(how: &str) -> Manager<Program> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/foreign/worker.py");
    let quickly =
        Restart::at_most(100, Duration::from_secs(60)).backoff(Duration::from_millis(1), Duration::from_millis(2));
    Manager::program("foreign", &format!("python3 '{script}' {how}")).restart(quickly)
}

fn one_at_a_time(process: Process) -> Process {
    process.env("WINDOW", "1")
}

fn state(node: &Node) -> (WorkerState, u32) {
    let worker = &view(node, "foreign").workers[0];
    (worker.state, worker.restarts)
}

fn last_error(node: &Node) -> String {
    view(node, "foreign").workers[0].last_error.clone().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_in_another_language_handles_what_it_says_it_handles() {
    let node = started(App::new("test").manager(foreign("well"))).await;
    for number in 0..1000 {
        node.bus().publish(noted(number)).await.expect("published");
    }
    for number in 0..100 {
        assert_eq!(node.bus().request(asked(number)).await.expect("answered"), number * 2);
    }
    let account = at_rest(node.bus()).await;
    assert_eq!(account.handled, 1100);
    assert!(ends_well(&node).await.unfinished.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_program_publishes_reaches_others_with_its_cause() {
    let seen = Seen::default();
    let notes = {
        let seen: Seen<(u64, bool)> = seen.clone();
        crate::support::does::<Followed, _>(move |event, cx| {
            seen.add((event.number, cx.envelope().is_some_and(|envelope| envelope.head().cause.is_some())));
            Box::pin(async { Ok(()) })
        })
    };
    let follower = Manager::new("follower").worker(notes).handles::<Followed>();
    let node = started(App::new("test").manager(foreign("follows")).manager(follower)).await;
    for number in 0..100 {
        node.bus().publish(noted(number)).await.expect("published");
    }
    assert_eq!(seen.wait_for(100).await, (0..100).map(|number| (number, true)).collect::<Vec<_>>());
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_a_hello_fails_and_says_why() {
    let quick = |process: Process| process.handshake_limit(Duration::from_millis(300));
    let start = |manager: Manager<Program>| async {
        let failed = within("a start to fail", App::new("test").manager(manager).start()).await;
        failed.err().map(|error| error.to_string()).expect("it does not start")
    };
    let cases = [
        (foreign("exits"), "exit code 3 before it said hello; it wrote: cannot find the thing I need"),
        (foreign("mute").process(quick), "did not say hello within 300ms"),
        (foreign("rubbish-first"), "first bytes are no hello"),
        (foreign("future"), "it speaks version 99 of the protocol, this node version 1"),
        (foreign("misnamed"), "not a name"),
        (foreign("no-start").restart(Restart::never()), "the database is away"),
        (Manager::program("foreign", "/no/such/program"), "cannot start `/no/such/program`"),
        (Manager::program("foreign", "python3 'open"), "a quote in it is not closed"),
        (foreign("well").process(|process| process.directory("/no/such/place")), "cannot start"),
    ];
    for (manager, why) in cases {
        let said = start(manager).await;
        assert!(said.contains(why), "{said:?} says {why:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_are_started_side_by_side_so_that_a_slow_one_holds_nobody_up() {
    let place = std::env::temp_dir().join(format!("edri-meeting-{}", std::process::id()));
    std::fs::create_dir_all(&place).expect("made");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/foreign/worker.py");
    let one = |name: &str| {
        let manager = Manager::program(name, &format!("python3 '{script}' meets"));
        manager.process(|process| process.env("PLACE", &place))
    };
    // Each says hello only when all three are there.
    let node = started(App::new("test").manager(one("a")).manager(one("b")).manager(one("c"))).await;
    let receipt = node.bus().publish(noted(1)).await.expect("published");
    assert_eq!(receipt.deliveries, 3);
    ends_well(&node).await;
    std::fs::remove_dir_all(&place).expect("removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_is_replaced_and_its_event_accounted_for() {
    let cases = [
        ("dies", "signal 9 (KILL)"),
        ("leaves", "exit code 0 without having said bye"),
        ("rubbish", "it sent what is no frame"),
        ("too-long", "it sent what is no frame"),
        ("half", "it closed its socket"),
    ];
    for (how, why) in cases {
        let node = started(App::new("test").manager(foreign(how).process(one_at_a_time))).await;
        for number in [1, STONE, 2] {
            node.bus().publish(noted(number)).await.expect("published");
        }
        let account = at_rest(node.bus()).await;
        assert_eq!((account.handled, account.dead_lettered), (2, 1), "{how}: {account:?}");
        assert_eq!(letters(node.bus()), [(Reason::WorkerLost, "manager `foreign`".to_owned(), 1)], "{how}");
        assert_eq!(dead_numbers(node.bus()), [STONE], "{how}");
        assert!(last_error(&node).contains(why), "{how}: {:?}", last_error(&node));
        assert_eq!(state(&node), (WorkerState::Running, 1), "{how}");
        ends_well(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_hangs_is_found_and_replaced() {
    let quick = |process: Process| one_at_a_time(process).silence_limit(Duration::from_millis(400));
    for how in ["stops", "deaf", "ignores"] {
        let node = started(App::new("test").manager(foreign(how).process(quick))).await;
        for number in [1, STONE, 2] {
            node.bus().publish(noted(number)).await.expect("published");
        }
        let account = at_rest(node.bus()).await;
        assert_eq!((account.handled, account.dead_lettered), (2, 1), "{how}: {account:?}");
        assert_eq!(dead_numbers(node.bus()), [STONE], "{how}");
        ends_well(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_poisonous_event_does_not_condemn_its_neighbours() {
    let node = started(App::new("test").manager(foreign("dies"))).await;
    let events = 0..200_u64;
    node.bus().publish_batch(events.clone().map(noted)).await.expect("published");
    let account = at_rest(node.bus()).await;
    assert_eq!((account.handled, account.dead_lettered), (199, 1), "{account:?}");
    assert_eq!(dead_numbers(node.bus()), [STONE]);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_a_process_died_of_is_tried_again_marked() {
    let manager = foreign("once").retry(Retry::attempts(2));
    let node = started(App::new("test").manager(manager)).await;
    for number in 0..50 {
        node.bus().publish(noted(number)).await.expect("published");
    }
    let account = at_rest(node.bus()).await;
    assert_eq!((account.handled, account.dead_lettered), (50, 0), "{account:?}");
    assert_eq!(state(&node), (WorkerState::Running, 1));
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_in_a_dying_process_is_answered_worker_lost_or_tried_again() {
    let node = started(App::new("test").manager(foreign("dies"))).await;
    let lost = within("an answer", node.bus().request(asked(STONE))).await;
    assert!(matches!(&lost, Err(RequestError::WorkerLost(why)) if why.contains("KILL")), "{lost:?}");
    assert_eq!(within("an answer", node.bus().request(asked(2))).await.expect("answered"), 4);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_numbers_and_unknown_frames_change_nothing() {
    let node = started(App::new("test").manager(foreign("forges"))).await;
    for number in 0..50 {
        node.bus().publish(noted(number)).await.expect("published");
    }
    assert_eq!(at_rest(node.bus()).await.handled, 50);
    assert_eq!(state(&node), (WorkerState::Running, 0));
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_output_holds_nobody_up() {
    let node = started(App::new("test").manager(foreign("floods"))).await;
    for number in 0..50 {
        node.bus().publish(noted(number)).await.expect("published");
    }
    assert_eq!(at_rest(node.bus()).await.handled, 50);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_takes_too_long_costs_its_process() {
    let manager = foreign("slow").time_limit(Duration::from_millis(200));
    let node = started(App::new("test").manager(manager)).await;
    let began = Instant::now();
    for number in [1, STONE, 2] {
        node.bus().publish(noted(number)).await.expect("published");
    }
    let account = at_rest(node.bus()).await;
    assert!(began.elapsed() < LIMIT);
    assert_eq!((account.handled, account.dead_lettered), (2, 1), "{account:?}");
    assert_eq!(letters(node.bus()), [(Reason::TimeLimit, "manager `foreign`".to_owned(), 1)]);
    ends_well(&node).await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_takes_more_than_it_may_is_ended_by_the_system() {
    let cases = [
        ("eats", foreign("eats").process(|process| process.memory_limit(1 << 30)), "MemoryError"),
        (
            "spins",
            foreign("spins").process(|process| process.cpu_limit(Duration::from_secs(1))),
            "XCPU: it used up its processor time",
        ),
    ];
    for (how, manager, why) in cases {
        let node = started(App::new("test").manager(manager.process(one_at_a_time))).await;
        for number in [1, STONE, 2] {
            node.bus().publish(noted(number)).await.expect("published");
        }
        let account = at_rest(node.bus()).await;
        assert_eq!((account.handled, account.dead_lettered), (2, 1), "{how}: {account:?}");
        assert!(last_error(&node).contains(why), "{how}: {:?}", last_error(&node));
        ends_well(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_has_the_environment_and_the_directory_it_is_given() {
    let directory = std::env::temp_dir().join(format!("edri-processes-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("here")).expect("made");
    let here = directory.clone();
    let manager = foreign("tells")
        .process(|process| process.env("TOLD", "4711").env("LEFT_OUT", "1").env_remove("LEFT_OUT").directory(here));
    let seen = Seen::default();
    let told = seen.clone();
    let follower = crate::support::does::<Followed, _>(move |event, _| {
        told.add(event.number);
        Box::pin(async { Ok(()) })
    });
    let follower = Manager::new("follower").worker(follower).handles::<Followed>();
    let node = started(App::new("test").manager(manager).manager(follower)).await;
    node.bus().publish(noted(STONE)).await.expect("published");
    assert_eq!(seen.wait_for(1).await, [4711]);
    ends_well(&node).await;
    std::fs::remove_dir_all(&directory).expect("removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_come_with_events_and_go_without() {
    let demand = |process: Process| process.on_demand(0, 3, Duration::from_millis(100));
    let node = started(App::new("test").manager(foreign("well").process(demand))).await;
    let running =
        || view(&node, "foreign").workers.iter().filter(|worker| worker.state == WorkerState::Running).count();
    until("all processes to go", || running() == 0).await;
    for round in 0..3 {
        node.bus().publish_batch((0..100).map(noted)).await.expect("published");
        let account = at_rest(node.bus()).await;
        assert_eq!(account.handled, 100 * (round + 1));
        until("all processes to go", || running() == 0).await;
    }
    node.bus().publish(noted(1)).await.expect("published");
    assert!(ends_well(&node).await.unfinished.is_empty(), "what came last was handled too");
    assert_eq!(node.bus().account().handled, 301);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_a_process_and_its_children() {
    let token = "left-by-a-process";
    let node = started(App::new("test").manager(foreign(&format!("children {token}")))).await;
    node.bus().publish(noted(STONE)).await.expect("published");
    at_rest(node.bus()).await;
    until("the process and its child to run", || running(token) == 2).await;
    ends_well(&node).await;
    until("no process to be left", || running(token) == 0).await;
}

#[test]
fn no_process_outlives_a_killed_node_not_even_a_stopped_one() {
    // So many processes there are when the event has done what it does: the node, its worker, and what that started.
    let cases = [("foreign", "well", 2), ("foreign", "stops", 2), ("foreign", "children", 3), ("rust", "image", 2)];
    for (what, how, processes) in cases {
        let token = format!("left-by-a-killed-node-{how}");
        let mut node = Command::new(env!("CARGO_BIN_EXE_edri-tests-program"))
            .args([what, how, &token])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        BufReader::new(node.stdout.take().expect("piped")).read_line(&mut line).expect("it says something");
        assert_eq!(line, "running\n");
        blocking_until("the processes to run", || running(&token) == processes);
        blocking_until("the worker to be stopped", || how != "stops" || is_one_stopped(&token));
        node.kill().expect("killed");
        node.wait().expect("reaped");
        blocking_until("no process to be left", || running(&token) == 0);
    }
}

/// The processes that have this word in their command line, as folders of `/proc`. A zombie has none.
fn processes_with(token: &str) -> Vec<PathBuf> {
    let processes = std::fs::read_dir("/proc").expect("there is /proc").flatten().map(|process| process.path());
    let has_token = |process: &PathBuf| {
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == token.as_bytes())
    };
    processes.filter(has_token).collect()
}

pub(crate) fn running(token: &str) -> usize {
    processes_with(token).len()
}

fn is_one_stopped(token: &str) -> bool {
    let stats =
        processes_with(token).into_iter().filter_map(|process| std::fs::read_to_string(process.join("stat")).ok());
    // The state follows the name of the program, which is in parentheses.
    stats.into_iter().any(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T')))
}

pub(crate) fn blocking_until(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < limit, "waited {LIMIT:?} for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_whose_processes_keep_dying_fails() {
    let manager = foreign("dies").restart(Restart::at_most(2, Duration::from_secs(60))).retry(Retry::attempts(100));
    let node = started(
        App::new("test")
            .manager(manager)
            .manager(Manager::new("other").worker(keeps(&Seen::default())).handles::<Noted>()),
    )
    .await;
    node.bus().publish(noted(STONE)).await.expect("published");
    until("the manager to fail", || view(&node, "foreign").state == ManagerState::Failed).await;
    at_rest(node.bus()).await;
    let refused = within("an answer", node.bus().request(Asked { number: 1 })).await;
    assert!(matches!(refused, Err(RequestError::NoHandler(_))), "{refused:?}");
    ends_well(&node).await;
}
