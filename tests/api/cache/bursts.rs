//! Many who ask the same at the same time.

use futures_util::future::join_all;

use super::*;
use crate::support::within;

/// A desk behind a gate, and its node.
async fn gated() -> (Desk, Gate, Node) {
    let gate = Gate::closed();
    let desk = Desk { gate: Some(gate.clone()), ..Desk::default() };
    let node = desk.node(gateway()).await;
    (desk, gate, node)
}

/// Waits until so many requests wait.
async fn waiting(node: &Node, outcome: &str, count: u64) {
    let line = format!("edri_cache_requests_total{{outcome=\"{outcome}\"}} {count}");
    let limit = tokio::time::Instant::now() + crate::support::LIMIT;
    while !String::from_utf8_lossy(&get(node, "/metrics").await.body).contains(&line) {
        assert!(tokio::time::Instant::now() < limit, "no {line}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_burst_of_equal_requests_asks_the_worker_once() {
    let (desk, gate, node) = gated().await;
    let burst = join_all((0..100).map(|_| get(&node, "/tickets/1")));
    let (answers, ()) = tokio::join!(burst, async {
        waiting(&node, "joined", 99).await;
        gate.let_through(1);
    });
    assert_eq!(desk.times(), 1);
    assert!(answers.iter().all(|answer| times(answer) == 1 && answer.body == answers[0].body));
    ends_well(&node).await;
}

#[tokio::test]
async fn all_of_a_burst_are_told_the_error_and_the_next_asks_again() {
    let (desk, gate, node) = gated().await;
    let burst = join_all((0..10).map(|_| get(&node, "/rates/wrong")));
    let (answers, ()) = tokio::join!(burst, async {
        waiting(&node, "joined", 9).await;
        gate.open();
    });
    for answer in answers {
        assert_eq!((answer.status.as_u16(), &answer.json()["detail"]), (404, &json!("wrong, the 1. time")));
    }
    assert_eq!(get(&node, "/rates/wrong").await.json()["detail"], json!("wrong, the 2. time"));
    assert_eq!(desk.times(), 2);
    ends_well(&node).await;
}

#[tokio::test]
async fn whoever_leaves_cancels_nothing_until_all_have_left() {
    let (desk, gate, node) = gated().await;
    {
        let mut first = Box::pin(get(&node, "/tickets/1"));
        tokio::select! {
            answer = &mut first => panic!("{answer:?}"),
            () = gate.arrived(1) => {}
        }
        let mut second = Box::pin(get(&node, "/tickets/1"));
        tokio::select! {
            answer = &mut second => panic!("{answer:?}"),
            () = waiting(&node, "joined", 1) => {}
        }
        drop(first);
        gate.let_through(1);
        assert_eq!(times(&within("the second", second).await), 1, "the first one's leaving is no harm to it");
    }
    assert_eq!((desk.times(), desk.cancelled.load(Ordering::SeqCst)), (1, 0));
    {
        let mut third = Box::pin(get(&node, "/tickets/2"));
        tokio::select! {
            answer = &mut third => panic!("{answer:?}"),
            () = gate.arrived(2) => {}
        }
    }
    until("the worker to see it", || desk.cancelled.load(Ordering::SeqCst) == 1).await;
    gate.open();
    assert_eq!(times(&get(&node, "/tickets/2").await), 3, "what was cancelled is asked for again");
    ends_well(&node).await;
}

#[tokio::test]
async fn a_notification_that_comes_while_the_worker_answers_ends_that_answer_too() {
    let (desk, gate, node) = gated().await;
    let before = get(&node, "/tickets/1");
    let after = async {
        gate.arrived(1).await;
        node.bus().publish(Changed { id: 1 }).await.expect("published");
        let (after, ()) = tokio::join!(get(&node, "/tickets/1"), async {
            gate.arrived(2).await;
            gate.open();
        });
        after
    };
    let (before, after) = tokio::join!(before, after);
    assert_eq!((times(&before), times(&after)), (1, 2), "who asks after it is not given what was asked for before");
    assert_eq!((times(&get(&node, "/tickets/1").await), desk.times()), (2, 2), "and nobody is later");
    ends_well(&node).await;
}

#[tokio::test]
async fn in_a_burst_everybody_has_a_cookie_of_its_own() {
    let (desk, gate, node) = gated().await;
    let burst = join_all((0..5).map(|_| get(&node, "/http/cookie")));
    let (answers, ()) = tokio::join!(burst, async {
        waiting(&node, "joined", 4).await;
        gate.open();
    });
    let mut cookies: Vec<_> = answers.iter().map(|answer| answer.header("set-cookie").to_owned()).collect();
    cookies.sort();
    cookies.dedup();
    assert_eq!((cookies.len(), desk.times()), (5, 5));
    ends_well(&node).await;
}
