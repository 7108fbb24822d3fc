//! Groups of other nodes, with the test in the place of the connector: it takes out of their inboxes what goes there.

use std::sync::Arc;

use edri::prelude::*;
use edri::{Answer, Event, GroupName, NodeName, Pattern, Reason, TryPublishError};
use edri_router::{
    Delivery, Ended, Forgone, Group, GroupOptions, GroupRef, InboxConsumer, Joining, Outcome, ReplyTo, Selection,
    Spread, Ticket,
};
use futures_util::FutureExt;
use parking_lot::Mutex;

use super::support::{
    Asked, AskedAgain, Followed, Gate, LIMIT, Noted, Seen, asked, at_rest, dead_numbers, does, ends_well, keeps,
    keeps_behind, letters, noted, publishers_wait, started, until, within,
};

/// A group of another node, and who takes out of its inbox what is to be sent there.
pub(crate) struct There {
    pub(crate) group: GroupRef,
    inbox: InboxConsumer,
}

fn remote(at: &str, name: &str, capacity: usize, events: &[&str]) -> (Joining, There) {
    let name: GroupName = name.parse().expect("a name");
    let patterns: Vec<_> = events.iter().map(|event| Pattern::new(event).expect("a pattern")).collect();
    let options = GroupOptions {
        shared: false,
        name,
        spread: Spread::Compete,
        capacity,
        overflow: Overflow::Wait,
        handlers: patterns.iter().map(|pattern| (pattern.clone(), 0)).collect(),
    };
    let group = Group::remote(options, NodeName::new(at).expect("a name"));
    let selections = patterns.into_iter().map(Selection::new).collect();
    let joining = Joining { group: Arc::clone(&group), events: Vec::new(), selections };
    (joining, There { inbox: group.consume(0), group })
}

/// The manager `name` of the node `at` has room for so many and wants these events.
pub(crate) async fn joins(node: &Node, at: &str, name: &str, capacity: usize, events: &[&str]) -> There {
    let (joining, there) = remote(at, name, capacity, events);
    node.router().change(vec![joining], &[]).await.expect("joins");
    there
}

impl There {
    async fn next(&mut self) -> Delivery {
        within("an event for another node", self.inbox.next()).await.expect("open")
    }

    /// Sends the next event: the other node has it and accounts for it.
    async fn forward(&mut self) -> Delivery {
        let delivery = self.next().await;
        self.group.hold(1);
        self.group.settle(1, Ended::Forwarded);
        self.inbox.give_back();
        delivery
    }

    async fn answer(&mut self, node: &Node, outcome: Outcome) -> Delivery {
        let delivery = self.forward().await;
        assert!(node.router().complete(delivery.ticket().expect("somebody waits"), outcome));
        delivery
    }
}

fn value(number: u64) -> Outcome {
    Ok(Body::from(serde_json::json!(number)).into())
}

fn number(delivery: &Delivery) -> u64 {
    delivery.envelope.payload::<Noted>().expect("a noted").number
}

async fn bare() -> Node {
    started(App::new("here")).await
}

// ---- notifications -----------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_goes_to_groups_of_this_node_and_of_others_and_all_of_it_is_accounted_for() {
    let seen = Seen::default();
    let node = started(App::new("here").manager(Manager::new("local").worker(keeps(&seen)).handles::<Noted>())).await;
    let mut there = joins(&node, "north", "far", 8, &["test.noted"]).await;
    assert_eq!(there.group.name().to_string(), "manager `far` on node `north`");
    let receipt = node.bus().publish(noted(1)).await.expect("published");
    assert_eq!(receipt.deliveries, 2);
    node.bus().publish_batch([noted(2), noted(3)]).await.expect("published");
    let delivery = there.next().await;
    assert_eq!((number(&delivery), delivery.attempts, delivery.redelivered), (1, 0, false));
    there.group.hold(1);
    let account = there.group.account();
    assert_eq!((account.deliveries, account.queued, account.in_hand), (3, 2, 1));
    assert!(account.is_balanced());
    // What other nodes have in hand is not waited for.
    seen.wait_for(3).await;
    within("rest", node.at_rest()).await;
    there.group.settle(1, Ended::Forwarded);
    assert_eq!([number(&there.forward().await), number(&there.forward().await)], [2, 3]);
    let account = at_rest(node.bus()).await;
    assert_eq!((account.deliveries, account.handled, account.forwarded), (6, 3, 3));
    let topology = node.topology();
    assert_eq!(topology.remote.len(), 1);
    assert_eq!(topology.managers.len(), 1);
    assert!(topology.manager("far").is_none(), "no manager of this node");
    assert_eq!(serde_json::to_value(&topology.remote[0].name).expect("a text"), "north/far");
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_waits_for_a_node_that_can_be_reached_and_is_let_go_when_it_no_longer_can() {
    let node = bare().await;
    let there = joins(&node, "north", "far", 1, &["test.noted"]).await;
    node.bus().publish(noted(1)).await.expect("room");
    let waiting = {
        let bus = node.bus().clone();
        tokio::spawn(async move { bus.publish(noted(2)).await })
    };
    let mut batch = Box::pin(node.bus().publish_batch([noted(3), noted(4)]));
    assert!((&mut batch).now_or_never().is_none(), "there is no room");
    assert!(!waiting.is_finished());
    there.group.set_reachable(false);
    let receipt = within("the publisher", waiting).await.expect("no panic").expect("nobody is to blame");
    assert_eq!(receipt.deliveries, 0);
    within("the batch", batch).await.expect("nobody is to blame");
    // Nor does anybody begin to wait.
    let receipt = node.bus().publish(noted(5)).now_or_never().expect("at once").expect("published");
    assert_eq!(receipt.deliveries, 0);
    assert_eq!(node.bus().try_publish(noted(6)).expect("not refused").deliveries, 0);
    let mut dead = dead_numbers(node.bus());
    dead.sort_unstable();
    assert_eq!(dead, [2, 3, 4, 5, 6]);
    let letter = (Reason::Undelivered, "manager `far` on node `north`".to_owned(), 0);
    assert_eq!(letters(node.bus()), vec![letter; 5]);
    assert_eq!(node.bus().dead_letters()[0].detail, "node `north` is unreachable and its backlog is full");
    let account = there.group.account();
    assert_eq!((account.deliveries, account.dead_lettered, account.queued), (6, 5, 1));
    assert!(account.is_balanced());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_finds_its_backlog_and_is_waited_for_again() {
    let node = bare().await;
    let mut there = joins(&node, "north", "far", 2, &["test.noted"]).await;
    node.bus().declare(Noted::descriptor()).await.expect("declared");
    there.group.set_reachable(false);
    for number in 1..=3 {
        node.bus().publish(noted(number)).now_or_never().expect("at once").expect("published");
    }
    there.group.set_reachable(true);
    assert!(matches!(node.bus().try_publish(noted(4)), Err(TryPublishError::Full { .. })));
    let mut waiting = Box::pin(node.bus().publish(noted(5)));
    assert!((&mut waiting).now_or_never().is_none());
    assert_eq!([number(&there.forward().await), number(&there.forward().await)], [1, 2]);
    assert_eq!(within("room", waiting).await.expect("published").deliveries, 1);
    assert_eq!(number(&there.forward().await), 5);
    assert_eq!(dead_numbers(node.bus()), [3]);
    // A dead letter of before goes over now, and becomes another one where it cannot.
    let resend = async || node.bus().resend(node.bus().dead_letters()[0].number).await;
    resend().await.expect("there is room");
    assert_eq!(number(&there.forward().await), 3);
    there.group.set_reachable(false);
    for number in 6..=8 {
        node.bus().publish(noted(number)).await.expect("published");
    }
    assert!(matches!(resend().await, Err(edri_router::ResendError::Unreachable(_))));
    assert_eq!(dead_numbers(node.bus()), [8], "it is there once");
    assert!(there.group.account().is_balanced());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_node_that_is_gone_ends_with_the_reason_given() {
    let node = bare().await;
    let there = joins(&node, "north", "far", 4, &["test.noted", "test.asked"]).await;
    node.bus().publish(noted(1)).await.expect("published");
    let asking = ask(&node, 1);
    queued(&there.group, 2).await;
    let router = node.router();
    router.change(Vec::new(), &[Arc::clone(&there.group)]).await.expect("withdrawn");
    there.group.close(None);
    let reason = "node `north` was lost before it said that it had it";
    assert_eq!(router.remove(&there.group, Reason::Unconfirmed, reason), 2);
    let error = within("an answer", asking).await.expect("no panic").expect_err("nobody answers");
    assert!(matches!(&error, RequestError::PeerLost(detail) if detail == reason), "{error}");
    assert_eq!(error.code(), "peer_lost");
    assert_eq!(letters(node.bus())[0].0, Reason::Unconfirmed);
    let account = at_rest(node.bus()).await;
    assert_eq!((account.deliveries, account.failed, account.dead_lettered), (2, 1, 1));
    assert!(node.topology().remote.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_leaves_nothing_for_other_nodes_unaccounted() {
    let node = bare().await;
    let there = joins(&node, "north", "far", 4, &["test.noted"]).await;
    node.bus().publish(noted(1)).await.expect("published");
    ends_well(&node).await;
    assert_eq!(there.group.account().dead_lettered, 1);
}

// ---- requests ----------------------------------------------------------------------------------------------------------

/// A node whose own manager answers behind a gate and has room for one more, and two others: `near`, one link away, and
/// `far`, three links away.
async fn three() -> (Node, Gate, There, There) {
    let gate = Gate::closed();
    let keeps = keeps_behind(&gate, &Seen::default());
    let manager = Manager::new("same").inbox(1).worker(keeps).handles::<Asked>();
    let node = started(App::new("here").manager(manager)).await;
    let far = joins(&node, "far", "same", 2, &["test.asked"]).await;
    let near = joins(&node, "near", "same", 2, &["test.asked"]).await;
    far.group.set_distance(3);
    (node, gate, near, far)
}

fn ask(node: &Node, number: u64) -> tokio::task::JoinHandle<Result<u64, RequestError>> {
    let bus = node.bus().clone();
    tokio::spawn(async move { bus.request(asked(number)).await })
}

async fn queued(group: &GroupRef, count: usize) {
    until("a request to be queued", || group.depths() == [count]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_goes_to_its_own_node_while_there_is_room_then_to_the_nearest_then_further() {
    let (node, gate, mut near, mut far) = three().await;
    let mut open = Vec::new();
    open.push(ask(&node, 0));
    gate.arrived(1).await;
    open.push(ask(&node, 1));
    until("a request to be queued", || node.topology().managers[0].depths == [1]).await;
    for (number, group, count) in [(2, &near.group, 1), (3, &near.group, 2), (4, &far.group, 1), (5, &far.group, 2)] {
        open.push(ask(&node, number));
        queued(group, count).await;
    }
    // Now it waits for whoever has room first.
    open.push(ask(&node, 6));
    far.answer(&node, value(40)).await;
    queued(&far.group, 2).await;
    gate.open();
    near.answer(&node, value(20)).await;
    near.answer(&node, value(30)).await;
    far.answer(&node, value(50)).await;
    far.answer(&node, value(60)).await;
    let mut answers = Vec::new();
    for open in open {
        answers.push(within("an answer", open).await.expect("no panic").expect("answered"));
    }
    assert_eq!(answers, [0, 1, 20, 30, 40, 50, 60]);
    let account = at_rest(node.bus()).await;
    assert_eq!((account.deliveries, account.handled, account.forwarded), (7, 2, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_nodes_as_near_the_one_with_the_least_unanswered_is_asked() {
    let node = bare().await;
    let one = joins(&node, "one", "same", 8, &["test.asked"]).await;
    let two = joins(&node, "two", "same", 8, &["test.asked"]).await;
    one.group.set_unanswered(2);
    let mut open = vec![ask(&node, 1)];
    queued(&two.group, 1).await;
    two.group.hold(3);
    open.push(ask(&node, 2));
    queued(&one.group, 1).await;
    two.group.release(3);
    drop(open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_be_reached_is_asked_only_if_nobody_else_answers_and_then_waited_for() {
    let (node, gate, mut near, far) = three().await;
    near.group.set_reachable(false);
    let in_hand = ask(&node, 0);
    gate.arrived(1).await;
    let busy = [in_hand, ask(&node, 1)];
    until("a request to be queued", || node.topology().managers[0].depths == [1]).await;
    let asking = ask(&node, 2);
    queued(&far.group, 1).await;
    asking.abort();
    // Only those that cannot be reached: it waits in the outbox.
    let node2 = bare().await;
    let mut lone = joins(&node2, "north", "same", 1, &["test.asked"]).await;
    lone.group.set_reachable(false);
    let waits = ask(&node2, 3);
    queued(&lone.group, 1).await;
    // As far as there is room.
    let error = within("an answer", ask(&node2, 4)).await.expect("no panic").expect_err("no room");
    assert!(matches!(&error, RequestError::PeerLost(detail) if detail.contains("`north`")), "{error}");
    lone.group.set_reachable(true);
    lone.answer(&node2, value(30)).await;
    assert_eq!(within("an answer", waits).await.expect("no panic").expect("answered"), 30);
    // One that waits for room when the node is lost.
    let first = ask(&node2, 5);
    queued(&lone.group, 1).await;
    let second = ask(&node2, 6);
    tokio::task::yield_now().await;
    lone.group.set_reachable(false);
    let error = within("an answer", second).await.expect("no panic").expect_err("lost");
    assert_eq!(error.code(), "peer_lost");
    first.abort();
    gate.open();
    for busy in busy {
        within("an answer", busy).await.expect("no panic").expect("answered");
    }
    near.group.set_reachable(true);
    assert!(near.inbox.try_next().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_is_named_by_its_name_alone_or_with_its_node_and_a_node_by_itself() {
    let (node, gate, mut near, mut far) = three().await;
    gate.open();
    let bus = node.bus().clone();
    assert_eq!(within("it", bus.request_to("same", asked(1))).await.expect("the nearest is here"), 1);
    assert_eq!(within("it", bus.request_to("here/same", asked(2))).await.expect("answered"), 2);
    assert_eq!(within("it", bus.request_at("here", asked(3))).await.expect("answered"), 3);
    let (answered, _) = tokio::join!(bus.request_to("far/same", asked(4)), far.answer(&node, value(40)));
    assert_eq!(answered.expect("answered"), 40);
    let (answered, _) = tokio::join!(bus.request_at("near", asked(5)), near.answer(&node, value(50)));
    assert_eq!(answered.expect("answered"), 50);
    let body = serde_json::json!({"number": 6});
    let untyped = bus.untyped();
    let (answered, _) = tokio::join!(untyped.request_at("near", "test.asked", body), near.answer(&node, value(60)));
    assert_eq!(answered.expect("answered"), Body::from(serde_json::json!(60)));
    for wrong in ["near/other", "nowhere/same", "other"] {
        assert_eq!(bus.request_to(wrong, asked(7)).await.expect_err("nobody").code(), "no_handler", "{wrong}");
    }
    assert_eq!(bus.request_at("nowhere", asked(7)).await.expect_err("nobody").code(), "no_handler");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_managers_of_all_nodes_answer_a_request_to_all_also_those_of_one_name() {
    let (node, gate, mut near, mut far) = three().await;
    gate.open();
    let mut answers = within("answers", node.bus().request_all(asked(7))).await.expect("three answer");
    assert_eq!(answers.open(), 3);
    let answering = {
        let node = node.clone();
        tokio::spawn(async move {
            near.answer(&node, value(70)).await;
            far.answer(&node, Err(RequestError::WorkerLost("it fell".to_owned()))).await;
        })
    };
    let mut came = Vec::new();
    while let Some(Answer { node, manager, result, .. }) = within("an answer", answers.next()).await {
        came.push((node.to_string(), manager.to_string(), result.map_err(|error| error.code().to_owned())));
    }
    within("the answers", answering).await.expect("no panic");
    came.sort();
    let expect = [("far", Err("worker_lost".to_owned())), ("here", Ok(7)), ("near", Ok(70))];
    assert_eq!(came, expect.map(|(node, result)| (node.to_owned(), "same".to_owned(), result)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_came_before_all_is_known_goes_to_whoever_comes_first() {
    // A router that is not settled yet, as that of a node whose neighbours have not said what they answer.
    let control = edri_router::Control::start("here").expect("a thread");
    let name = NodeName::new("here").expect("a name");
    let runtime = tokio::runtime::Handle::current();
    let router = edri_router::Router::start(name, Default::default(), &control, &runtime);
    let bus = router.bus();
    let asking = tokio::spawn(async move { bus.request(asked(1)).await });
    let (joining, mut there) = remote("north", "far", 1, &["test.asked"]);
    router.change(vec![joining], &[]).await.expect("joins");
    let delivery = there.next().await;
    assert!(router.complete(delivery.ticket().expect("somebody waits"), value(10)));
    assert_eq!(within("an answer", asking).await.expect("no panic").expect("answered"), 10);
    let bus = router.bus();
    let nobody = tokio::spawn(async move { bus.request_to("other", asked(2)).await });
    tokio::task::yield_now().await;
    router.settle();
    assert_eq!(within("an answer", nobody).await.expect("no panic").expect_err("nobody").code(), "no_handler");
    // Its thread is joined, which is not for the runtime to wait for.
    tokio::task::spawn_blocking(move || drop(control)).await.expect("ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotent_request_is_sent_again_when_the_node_that_had_it_is_lost() {
    let node = bare().await;
    let mut one = joins(&node, "one", "same", 8, &["test.asked_again"]).await;
    let mut two = joins(&node, "two", "same", 8, &["test.asked_again"]).await;
    two.group.set_distance(2);
    let lost = || Err(RequestError::PeerLost("it fell".to_owned()));
    let asking = {
        let bus = node.bus().clone();
        tokio::spawn(async move { bus.request(AskedAgain { number: 1 }).await })
    };
    let first = one.next().await;
    one.group.hold(1);
    one.group.set_reachable(false);
    one.group.settle(1, Ended::Failed);
    assert!(node.router().complete(first.ticket().expect("it waits"), lost()));
    let second = two.answer(&node, value(20)).await;
    assert_eq!((first.redelivered, second.redelivered), (false, true));
    assert_eq!(first.envelope.id(), second.envelope.id());
    assert_eq!(within("an answer", asking).await.expect("no panic").expect("answered"), 20);
    // Not for ever, and others not at all.
    let asking = {
        let bus = node.bus().clone();
        tokio::spawn(async move { bus.request(AskedAgain { number: 2 }).await })
    };
    for _ in 0..3 {
        two.answer(&node, lost()).await;
    }
    assert_eq!(within("an answer", asking).await.expect("no panic").expect_err("lost").code(), "peer_lost");
    let asking = {
        let bus = node.bus().clone();
        tokio::spawn(async move { bus.request(AskedAgain { number: 3 }).await })
    };
    let last = two.forward().await;
    node.router().change(Vec::new(), &[one.group, two.group]).await.expect("withdrawn");
    node.router().complete(last.ticket().expect("it waits"), lost());
    let error = within("an answer", asking).await.expect("no panic").expect_err("lost");
    assert_eq!(error.code(), "peer_lost", "that nobody else is there says less");
    let mut three = joins(&node, "three", "same", 8, &["test.asked"]).await;
    let asking = ask(&node, 3);
    three.answer(&node, lost()).await;
    assert_eq!(within("an answer", asking).await.expect("no panic").expect_err("lost").code(), "peer_lost");
    at_rest(node.bus()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_of_managers_for_other_nodes_make_no_circle_with_those_of_the_same_name_here() {
    // `a` waits for `b` of another node, `b` of this node for `a`: no circle.
    let handler = |to: &'static str| {
        does(move |_: &Noted, cx: &mut Context| {
            async move {
                let result = cx.bus().request_to(to, asked(1)).await;
                match result {
                    Err(error) => Err(Failure::new("saw", error.to_string())),
                    Ok(_) => Ok(()),
                }
            }
            .boxed()
        })
    };
    let app = App::new("here")
        .limits(publishers_wait(LIMIT))
        .manager(Manager::new("a").worker(handler("north/b")).handles::<Noted>());
    let node = started(app).await;
    let mut there = joins(&node, "north", "b", 1, &["test.asked"]).await;
    node.bus().publish(noted(1)).await.expect("published");
    let delivery = there.next().await;
    assert!(node.router().complete(delivery.ticket().expect("waits"), Err(RequestError::TimedOut(Box::default()))));
    until("the handler's failure", || !node.bus().dead_letters().is_empty()).await;
    let letter = &node.bus().dead_letters()[0];
    assert!(letter.detail.contains("for manager `b` on node `north`"), "{}", letter.detail);
    assert!(!letter.detail.contains("wait for one another"), "{}", letter.detail);
}

// ---- calls that leave the node -----------------------------------------------------------------------------------------

#[derive(Default)]
struct Heard(Mutex<Vec<Ticket>>);

impl Forgone for Heard {
    fn forgone(&self, ticket: Ticket) {
        self.0.lock().push(ticket);
    }
}

#[edri::event(request, name = "test.hurried", response = u64, timeout = "2s")]
struct Hurried {}

#[edri::event(tunnel, name = "test.dug", up = u64, down = u64)]
struct Dug {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_calls_to_another_node_hears_when_their_requesters_give_up() {
    let node = bare().await;
    let heard = Arc::new(Heard::default());
    node.router().set_forgone(Arc::clone(&heard) as Arc<dyn Forgone>);
    let mut there = joins(&node, "north", "far", 8, &["test.asked", "test.hurried", "test.dug"]).await;
    let watched = async |there: &mut There| {
        let delivery = there.next().await;
        let ticket = delivery.ticket().expect("somebody waits");
        assert!(node.router().watch(Ticket::from_number(ticket.to_number())));
        (delivery, ticket)
    };
    // Dropped.
    let asking = ask(&node, 1);
    let (_, dropped) = watched(&mut there).await;
    asking.abort();
    until("it to be heard", || *heard.0.lock() == [dropped]).await;
    assert!(!node.router().complete(dropped, value(1)), "nobody waits");
    // Too late.
    let hurried = {
        let bus = node.bus().clone();
        tokio::spawn(async move { bus.request(Hurried {}).await })
    };
    let (_, late) = watched(&mut there).await;
    assert_eq!(within("its deadline", hurried).await.expect("no panic").expect_err("late").code(), "timed_out");
    until("it to be heard", || *heard.0.lock() == [dropped, late]).await;
    // Answered: nothing to be heard.
    let asking = ask(&node, 3);
    let (_, answered) = watched(&mut there).await;
    assert!(node.router().complete(answered, value(30)));
    assert_eq!(within("an answer", asking).await.expect("no panic").expect("answered"), 30);
    // A tunnel whose opener goes.
    let opened = node.bus().open(Dug {}).await.expect("it has a place");
    let (delivery, dug) = watched(&mut there).await;
    assert!(matches!(delivery.reply, ReplyTo::Tunnel(_, Some(_))));
    drop(opened);
    until("it to be heard", || *heard.0.lock() == [dropped, late, dug]).await;
}

// ---- what is known of others -------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_an_event_to_be_handled_goes_on_when_somebody_who_can_be_reached_does() {
    let node = bare().await;
    let bus = node.bus().clone();
    let pending = async |waiting: &mut (dyn Future<Output = Result<(), edri::DeclareError>> + Unpin + Send)| {
        assert!(waiting.now_or_never().is_none());
    };
    let mut noted_handled = Box::pin(bus.wait_for::<Noted>());
    let mut asked_handled = Box::pin(bus.wait_for::<Asked>());
    let untyped = bus.untyped();
    let mut by_name = Box::pin(untyped.wait_for("test.asked"));
    pending(&mut noted_handled).await;
    pending(&mut asked_handled).await;
    pending(&mut by_name).await;
    // By pattern, which is enough for a notification.
    let (joining, all) = remote("north", "log", 8, &["test.>"]);
    all.group.set_reachable(false);
    node.router().change(vec![joining], &[]).await.expect("joins");
    pending(&mut noted_handled).await;
    all.group.set_reachable(true);
    within("a handler", noted_handled).await.expect("handled");
    pending(&mut asked_handled).await;
    pending(&mut by_name).await;
    let answers = Manager::new("m").worker(keeps(&Seen::default())).handles::<Asked>();
    node.add(answers).await.expect("added");
    within("a handler", asked_handled).await.expect("handled");
    within("a handler", by_name).await.expect("handled");
    within("a handler that is there", bus.wait_for::<Asked>()).await.expect("handled");
    assert!(bus.untyped().wait_for("no name").await.is_err());
    node.drain("m").await.expect("drained");
    let mut again = Box::pin(bus.wait_for::<Asked>());
    pending(&mut again).await;
    ends_well(&node).await;
    assert_eq!(within("the end", again).await.expect_err("stopped").code(), "stopping");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_other_nodes_tell_of_can_be_used_untyped_and_never_stand_in_the_way() {
    let node = bare().await;
    let bus = node.bus().clone();
    let descriptor = |name: &str, kind| edri::Descriptor::declare(name, kind).expect("a name").build();
    let told = vec![
        descriptor("test.told", edri::Kind::Notification),
        // Contradicts what this program will declare under the name.
        descriptor(Followed::descriptor().name(), edri::Kind::Request),
    ];
    assert_eq!(
        bus.untyped().publish("test.told", serde_json::json!({})).await.expect_err("unknown").code(),
        "unknown_event"
    );
    assert_eq!(node.router().know(told, &[]), 0);
    let names =
        |bus: &Bus| bus.events().iter().map(|event| (event.name().to_string(), event.kind())).collect::<Vec<_>>();
    assert_eq!(
        names(&bus),
        [("test.followed".to_owned(), edri::Kind::Request), ("test.told".to_owned(), edri::Kind::Notification)]
    );
    let mut there = joins(&node, "north", "far", 8, &["test.told"]).await;
    let sent = bus.untyped().publish("test.told", serde_json::json!({"a": 1})).await.expect("published");
    assert_eq!(sent.deliveries, 1);
    assert_eq!(there.forward().await.envelope.name(), &"test.told");
    bus.publish(Followed { number: 1 }).await.expect("declared here all the same");
    assert!(names(&bus).contains(&("test.followed".to_owned(), edri::Kind::Notification)));
    let forgotten = [Followed::descriptor().name().clone(), "test.told".parse().expect("a name")];
    node.router().know(Vec::new(), &forgotten);
    assert_eq!(names(&bus).len(), 2, "what was used here is declared here");
}

#[tokio::test]
async fn the_topology_shows_what_a_connector_knows() {
    use edri::{LinkState, LinkView, NodeView};
    struct Knows;
    impl edri_router::Beyond for Knows {
        fn nodes(&self) -> Vec<NodeView> {
            let mut north = NodeView::new(NodeName::new("north").expect("a name"), edri::Incarnation::random());
            (north.reachable, north.distance) = (true, Some(2));
            vec![north]
        }
        fn links(&self) -> Vec<LinkView> {
            vec![LinkView::new("[::1]:7440".to_owned(), LinkState::Connecting)]
        }
    }
    let node = bare().await;
    let before = serde_json::to_value(node.topology()).expect("a map");
    assert!(before.get("nodes").is_none() && before.get("links").is_none());
    node.router().set_beyond(Arc::new(Knows));
    let shown = serde_json::to_value(node.topology()).expect("a map");
    assert_eq!((&shown["nodes"][0]["name"], &shown["nodes"][0]["distance"]), (&"north".into(), &2.into()));
    assert_eq!(shown["links"][0]["state"], "connecting");
}
