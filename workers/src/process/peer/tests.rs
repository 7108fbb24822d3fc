use std::time::Duration;

use bytes::BytesMut;
use edri_protocol::limits::FRAME_BYTES_MAX;
use edri_router::Window;
use futures_util::FutureExt;
use tokio::time::timeout;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);
const ID: u64 = 2;

/// A tunnel over two peers: the ends that an opener and a worker hold.
struct Wired {
    up: Sender<Body>,
    down: Receiver<Body>,
    worker_up: Receiver<Body>,
    worker_down: Sender<Body>,
}

/// Carries what one peer writes to the other.
fn wire(from: &Arc<Peer>, to: &Arc<Peer>) {
    let (from, to) = (Arc::clone(from), Arc::clone(to));
    tokio::spawn(async move {
        let mut read = BytesMut::new();
        let mut taken = Vec::new();
        loop {
            from.output().await;
            assert!(from.take_output(&mut taken));
            read.extend_from_slice(&taken);
            taken.clear();
            while let Some(frame) = edri_protocol::split(&mut read, FRAME_BYTES_MAX).expect("frames") {
                match Frame::decode(&frame).expect("a frame") {
                    Frame::Data(data) => to.data(&data, &frame),
                    Frame::Credit(credit) => to.credit(&credit),
                    Frame::End(end) => to.end(&end),
                    Frame::Abort(abort) => to.abort(&abort),
                    other => panic!("{other:?}"),
                }
            }
        }
    });
}

fn wired(encoding: Encoding) -> Wired {
    let [node, worker] = [(); 2].map(|()| Peer::new(encoding, FRAME_BYTES_MAX, Handle::current()));
    let (offer, up, down) = edri_router::from_elsewhere(Window::default());
    let (node_receiver, node_sender) = offer.into_untyped();
    node.run_tunnel(ID, Opener::Here, node_receiver, node_sender, Grant::default());
    let (offer, sender, receiver) = edri_router::from_elsewhere(Window::default());
    let (worker_up, worker_down) = offer.into_untyped();
    worker.run_tunnel(ID, Opener::There, receiver, sender, TUNNEL_WINDOW);
    wire(&node, &worker);
    wire(&worker, &node);
    Wired { up, down, worker_up, worker_down }
}

fn number(encoding: Encoding, number: u64) -> Body {
    Body::encode(encoding, &number).expect("encodes")
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.expect("in time")
}

async fn next(receiver: &mut Receiver<Body>) -> Result<Option<u64>, TunnelError> {
    let body = soon(receiver.recv()).await?;
    Ok(body.map(|body| body.decode().expect("a number")))
}

/// Lets everything happen that can happen by itself: there is one thread, so nothing else runs meanwhile.
async fn rest() {
    for _ in 0..2000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn items_arrive_in_order_both_ways_whatever_they_were_encoded_in() {
    for (encoding, items) in [
        (Encoding::MessagePack, Encoding::MessagePack),
        (Encoding::MessagePack, Encoding::Json),
        (Encoding::Json, Encoding::MessagePack),
    ] {
        let mut wired = wired(encoding);
        let up = tokio::spawn(async move {
            for item in 0..1000 {
                wired.up.send(number(items, item)).await.expect("open");
            }
            wired.up
        });
        let down = tokio::spawn(async move {
            for item in 0..1000 {
                wired.worker_down.send(number(items, item)).await.expect("open");
            }
            wired.worker_down
        });
        for item in 0..1000 {
            assert_eq!(next(&mut wired.worker_up).await.expect("open"), Some(item));
            assert_eq!(next(&mut wired.down).await.expect("open"), Some(item));
        }
        drop((up.await.expect("no panic"), down.await.expect("no panic")));
    }
}

#[tokio::test]
async fn an_item_longer_than_a_frame_breaks_the_tunnel() {
    let mut wired = wired(Encoding::MessagePack);
    wired.up.send(Body::new(Encoding::MessagePack, vec![0; FRAME_BYTES_MAX])).await.expect("queued");
    assert_eq!(next(&mut wired.worker_up).await.expect_err("broken").code(), "frame_too_long");
    assert_eq!(next(&mut wired.down).await.expect_err("broken").code(), "frame_too_long");
}

#[tokio::test]
async fn one_direction_finishes_while_the_other_goes_on() {
    let mut wired = wired(Encoding::Json);
    wired.up.send(number(Encoding::Json, 1)).await.expect("open");
    wired.up.finish();
    assert_eq!(next(&mut wired.worker_up).await.expect("open"), Some(1));
    assert_eq!(next(&mut wired.worker_up).await.expect("finished"), None);
    wired.worker_down.send(number(Encoding::Json, 2)).await.expect("open");
    wired.worker_down.finish();
    assert_eq!(next(&mut wired.down).await.expect("open"), Some(2));
    assert_eq!(next(&mut wired.down).await.expect("finished"), None);
    assert!(wired.down.is_finished(), "said, not just dropped");
}

#[tokio::test]
async fn an_abort_breaks_both_directions_at_both_ends_even_without_credit() {
    // Of the worker.
    let mut of_worker = wired(Encoding::MessagePack);
    of_worker.worker_down.abort(Failure::new("full", "disk"));
    assert_eq!(next(&mut of_worker.down).await.expect_err("broken").code(), "full");
    let error = loop {
        if let Err(error) = soon(of_worker.up.send(number(Encoding::MessagePack, 0))).await {
            break error;
        }
    };
    assert_eq!(error.code(), "full");
    // Of the opener, with all credit used up and nobody reading.
    let mut of_opener = wired(Encoding::MessagePack);
    loop {
        let mut sent = 0;
        while let Some(Ok(())) = of_opener.up.send(number(Encoding::MessagePack, 0)).now_or_never() {
            sent += 1;
        }
        if sent == 0 {
            break;
        }
        rest().await;
    }
    of_opener.up.abort(Failure::new("enough", "said the opener").with_detail("twice"));
    let error = soon(of_opener.worker_up.broken_off()).await;
    assert_eq!(error.failure().and_then(Failure::detail), Some("twice"));
    assert_eq!(
        soon(of_opener.worker_down.send(number(Encoding::MessagePack, 0)))
            .await
            .map_err(|error| error.code().to_owned()),
        Err("enough".to_owned())
    );
}

fn written(peer: &Peer) -> Vec<String> {
    let (mut taken, mut read) = (Vec::new(), BytesMut::new());
    peer.take_output(&mut taken);
    read.extend_from_slice(&taken);
    let mut frames = Vec::new();
    while let Some(frame) = edri_protocol::split(&mut read, FRAME_BYTES_MAX).expect("frames") {
        frames.push(match Frame::decode(&frame).expect("a frame") {
            Frame::Error(notice) => notice.code.to_string(),
            Frame::Abort(abort) => format!("abort {}", abort.failure.code),
            other => other.name().to_owned(),
        });
    }
    frames
}

#[tokio::test]
async fn what_comes_for_no_tunnel_or_without_credit_is_answered() {
    let peer = Peer::new(Encoding::Json, FRAME_BYTES_MAX, Handle::current());
    peer.credit(&Credit { id: ID, items: 1, bytes: 1 });
    peer.end(&End { id: ID });
    assert_eq!(written(&peer), ["unknown_call", "unknown_call"]);
    let (offer, sender, receiver) = edri_router::from_elsewhere(Window::default());
    let (mut worker_up, _worker_down) = offer.into_untyped();
    peer.run_tunnel(ID, Opener::There, receiver, sender, Grant::default());
    let frame = Bytes::new();
    for _ in 0..TUNNEL_WINDOW.items {
        peer.data(&Data { id: ID, payload: Payload::new(Encoding::Json, b"1") }, &frame);
    }
    assert_eq!(written(&peer), ["credit"]);
    peer.data(&Data { id: ID, payload: Payload::new(Encoding::Json, b"1") }, &frame);
    assert_eq!(written(&peer), ["no_credit", "abort no_credit"]);
    assert_eq!(next(&mut worker_up).await.expect_err("broken").code(), "no_credit");
    peer.tunnel_over(ID);
    peer.data(&Data { id: ID, payload: Payload::new(Encoding::Json, b"1") }, &frame);
    assert!(written(&peer).is_empty(), "what crossed the end is dropped");
}
