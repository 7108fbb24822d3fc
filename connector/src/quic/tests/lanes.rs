use std::collections::HashMap;

use bytes::{BufMut, BytesMut};
use futures_util::FutureExt;

use super::relay::Relay;
use super::*;
use crate::limits::{CLOSE_REASON_BYTES_MAX, LANE_FRAME_BYTES_MAX, TUNNEL_STREAMS_MAX};

const LANES: [StreamLane; 5] =
    [StreamLane::Control, StreamLane::High, StreamLane::Normal, StreamLane::Tunnel(0), StreamLane::Tunnel(u64::MAX)];

/// A frame of its lane and number, of a length that depends on them.
fn frame(lane: usize, number: usize) -> Bytes {
    let length = [0, 1, 60, 1400, 2048, 2049, 70_000][(lane + number) % 7];
    let mut frame = BytesMut::from(&[number as u8][..]);
    frame.put_bytes(lane as u8, length);
    frame.freeze()
}

#[tokio::test]
async fn frames_go_both_ways_in_every_lane_and_keep_their_order() {
    const EACH: usize = 200;
    let nodes = Nodes::new();
    let (near, far) = nodes.connect().await;
    assert_eq!((near.peer().as_str(), near.dialled()), ("b", true));
    assert_eq!((far.peer().as_str(), far.dialled()), ("a", false));
    assert_eq!(near.remote_address(), nodes.b.local_addr());
    let (mut one, mut other) = (near.lanes(), far.lanes());
    for number in 0..EACH {
        for (index, lane) in LANES.into_iter().enumerate() {
            one.0.send(lane, frame(index, number));
            other.0.send(lane, frame(index, number));
        }
    }
    for receiver in [&mut one.1, &mut other.1] {
        let mut next = HashMap::new();
        for (lane, got) in take(receiver, EACH * LANES.len()).await {
            let index = LANES.iter().position(|known| *known == lane).expect("a lane that was sent in");
            let number = next.entry(lane).or_insert(0);
            assert_eq!(got, frame(index, *number), "{lane} {number}");
            *number += 1;
        }
    }
    assert_eq!(near.closed_because(), None);
    assert!(near.stats().sent_bytes > 0 && near.stats().rtt == near.rtt());
}

#[tokio::test]
async fn the_longest_frame_arrives_and_holds_no_other_lane_back() {
    let (near, far) = Nodes::new().connect().await;
    let ((mut sender, _near), (_far, mut receiver)) = (near.lanes(), far.lanes());
    let longest = Bytes::from(vec![7; LANE_FRAME_BYTES_MAX]);
    sender.send(StreamLane::Normal, longest.clone());
    sender.send(StreamLane::High, Bytes::from_static(b"first"));
    let taken = take(&mut receiver, 2).await;
    assert_eq!(taken[0], (StreamLane::High, Bytes::from_static(b"first")));
    assert_eq!(taken[1], (StreamLane::Normal, longest));
}

#[tokio::test]
#[should_panic(expected = "too long for a lane")]
async fn a_frame_beyond_the_longest_is_not_sent() {
    let (near, _far) = Nodes::new().connect().await;
    near.lanes().0.send(StreamLane::High, Bytes::from(vec![0; LANE_FRAME_BYTES_MAX + 1]));
}

#[tokio::test]
async fn tunnels_beyond_the_limit_travel_in_normal_until_others_end() {
    let (near, far) = Nodes::new().connect().await;
    let ((mut sender, _near), (_far, mut receiver)) = (near.lanes(), far.lanes());
    let many = u64::from(TUNNEL_STREAMS_MAX);
    let more = 10;
    for key in 0..many + more {
        sender.send(StreamLane::Tunnel(key), Bytes::copy_from_slice(&key.to_be_bytes()));
    }
    for (lane, frame) in take(&mut receiver, (many + more) as usize).await {
        let key = u64::from_be_bytes(frame[..].try_into().unwrap());
        assert_eq!(lane, if key < many { StreamLane::Tunnel(key) } else { StreamLane::Normal });
    }
    for key in 0..many {
        sender.finish(StreamLane::Tunnel(key));
    }
    // The streams are free when the neighbour has read their ends, which it tells some time later.
    within(async {
        for key in many + more.. {
            sender.send(StreamLane::Tunnel(key), Bytes::from_static(b"again"));
            if take(&mut receiver, 1).await[0].0 == StreamLane::Tunnel(key) {
                return;
            }
            sender.finish(StreamLane::Tunnel(key));
        }
    })
    .await;
}

#[tokio::test]
async fn what_the_neighbour_does_not_read_waits_in_the_backlog() {
    const FRAMES: usize = 40;
    let (near, far) = Nodes::new().connect().await;
    let ((mut sender, _near), (_far, mut receiver)) = (near.lanes(), far.lanes());
    let backlog = sender.backlog();
    within(backlog.below(1)).await;
    for _ in 0..FRAMES {
        sender.send(StreamLane::Normal, Bytes::from(vec![0; 1 << 20]));
    }
    assert!(backlog.bytes() > 16 << 20, "{backlog:?}");
    assert!(backlog.below(1).now_or_never().is_none());
    take(&mut receiver, FRAMES).await;
    within(backlog.below(1)).await;
    assert_eq!(backlog.bytes(), 0);
}

#[tokio::test]
async fn nothing_waits_for_a_connection_that_has_ended() {
    let (near, far) = Nodes::new().connect().await;
    let (mut sender, _near) = near.lanes();
    for _ in 0..40 {
        sender.send(StreamLane::Normal, Bytes::from(vec![0; 1 << 20]));
    }
    assert!(sender.backlog().bytes() > 0);
    far.close(CloseCode::GoingAway, "");
    within(near.closed()).await;
    within(sender.backlog().below(1)).await;
    for lane in LANES {
        sender.send(lane, Bytes::from_static(b"late"));
    }
    within(sender.backlog().below(1)).await;
}

#[tokio::test]
async fn the_neighbour_is_told_code_and_text_of_a_close() {
    let nodes = Nodes::new();
    for code in [CloseCode::Bye, CloseCode::DuplicateNode, CloseCode::Refused, CloseCode::Unknown(4711)] {
        let (near, far) = nodes.connect().await;
        let (_sender, mut receiver) = near.lanes();
        far.close(code, "it is so");
        far.close(CloseCode::ProtocolError, "too late to count");
        assert_eq!(within(receiver.next()).await, None);
        assert_eq!(receiver.closed_because(), Some(Closed::Neighbour { code, reason: "it is so".to_owned() }));
        assert_eq!(far.closed_because(), Some(Closed::Here { code, reason: "it is so".to_owned() }));
    }
    let (near, far) = nodes.connect().await;
    far.close(CloseCode::Bye, &"é".repeat(CLOSE_REASON_BYTES_MAX));
    let Closed::Neighbour { reason, .. } = within(near.closed()).await else { panic!("closed by the other") };
    assert_eq!(reason, "é".repeat(CLOSE_REASON_BYTES_MAX / 2));
}

#[tokio::test]
async fn what_came_before_a_close_is_received() {
    let (near, far) = Nodes::new().connect().await;
    let ((mut sender, _near), (_far, mut receiver)) = (near.lanes(), far.lanes());
    sender.send(StreamLane::High, Bytes::from_static(b"one"));
    assert_eq!(take(&mut receiver, 1).await[0].1, "one");
    drop(sender);
    assert_eq!(within(receiver.next()).await, None);
    let bye = Closed::Neighbour { code: CloseCode::Bye, reason: String::new() };
    assert_eq!(receiver.closed_because(), Some(bye));
}

#[tokio::test]
async fn rubbish_ends_the_connection_that_it_came_by_and_no_other() {
    let nodes = Nodes::new();
    let (good, far_good) = nodes.connect().await;
    let ((mut good, _r), (_s, mut far_good)) = (good.lanes(), far_good.lanes());
    let mut too_long = vec![2];
    too_long.extend_from_slice(&u32::MAX.to_be_bytes());
    // The bytes of streams of their own, and what is said of them.
    let cases: [(&[&[u8]], bool, &str); 6] = [
        (&[&[9, 0, 0]], false, "no lane has the number 9"),
        (&[&too_long], false, "a frame of 4294967295 bytes is too long"),
        (&[&[1], &[1]], false, "two streams of the lane high"),
        (&[&[3, 1, 2]], true, "ends within its head"),
        (&[&[2, 0, 0, 0, 9, 1]], true, "the lane normal ends within a frame"),
        (&[&[1]], true, "the stream of a fixed lane has ended"),
    ];
    for (streams, finished, expect) in cases {
        let (near, far) = nodes.connect().await;
        let (_sender, mut receiver) = far.lanes();
        let mut kept = Vec::new();
        for bytes in streams {
            let mut stream = near.quinn().open_uni().await.unwrap();
            stream.write_all(bytes).await.unwrap();
            if finished {
                stream.finish().unwrap();
            }
            kept.push(stream);
        }
        assert_eq!(within(receiver.next()).await, None);
        let Closed::Neighbour { code, reason } = within(near.closed()).await else { panic!("{expect}") };
        assert_eq!(code, CloseCode::ProtocolError);
        assert!(reason.contains(expect), "{reason}");
    }
    // A stream that is abandoned, and one that its reader stops.
    let (near, far) = nodes.connect().await;
    let (_sender, mut receiver) = far.lanes();
    let mut stream = near.quinn().open_uni().await.unwrap();
    stream.write_all(&[1]).await.unwrap();
    stream.reset(1_u32.into()).unwrap();
    assert_eq!(within(receiver.next()).await, None);
    assert!(matches!(within(near.closed()).await, Closed::Neighbour { code: CloseCode::ProtocolError, .. }));

    let (near, far) = nodes.connect().await;
    let (mut sender, _receiver) = far.lanes();
    sender.send(StreamLane::High, Bytes::from_static(b"x"));
    within(near.quinn().accept_uni()).await.unwrap().stop(1_u32.into()).unwrap();
    let closed = within(async {
        // Whoever writes learns of it some time later.
        loop {
            sender.send(StreamLane::High, Bytes::from_static(b"y"));
            if let Ok(closed) = tokio::time::timeout(Duration::from_millis(5), near.closed()).await {
                return closed;
            }
        }
    })
    .await;
    assert!(matches!(closed, Closed::Neighbour { code: CloseCode::ProtocolError, .. }), "{closed:?}");

    good.send(StreamLane::High, Bytes::from_static(b"untouched"));
    assert_eq!(take(&mut far_good, 1).await[0].1, "untouched");
}

#[tokio::test]
async fn a_neighbour_that_falls_silent_is_noticed() {
    let nodes = Nodes::new();
    let relay = Relay::to(nodes.b.local_addr()).await;
    let (near, far) = nodes.connect_by(relay.address).await;
    let ((mut sender, mut near_receiver), (_far, mut far_receiver)) = (near.lanes(), far.lanes());
    sender.send(StreamLane::High, Bytes::from_static(b"alive"));
    take(&mut far_receiver, 1).await;
    relay.cut();
    let begun = tokio::time::Instant::now();
    for receiver in [&mut near_receiver, &mut far_receiver] {
        assert_eq!(within(receiver.next()).await, None);
        assert_eq!(receiver.closed_because(), Some(Closed::Silent));
    }
    // The limit is the promise, with some allowance for a machine that is busy.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_neighbour_that_is_only_idle_is_kept() {
    let options = Options {
        keep_alive: Duration::from_millis(30),
        idle_timeout: Duration::from_millis(1500),
        ..Options::default()
    };
    let authority = Authority::generate().unwrap();
    let bind = |name| Endpoint::bind(ANYWHERE.parse().unwrap(), issue(&authority, name), options.clone()).unwrap();
    let (near, _far) = Nodes { a: bind("a"), b: bind("b") }.connect().await;
    let closed = tokio::time::timeout(Duration::from_secs(4), near.closed()).await;
    assert!(closed.is_err(), "{closed:?}");
}

#[tokio::test]
async fn a_neighbour_whose_address_changes_keeps_its_connection() {
    let nodes = Nodes::new();
    let relay = Relay::to(nodes.b.local_addr()).await;
    let (near, far) = nodes.connect_by(relay.address).await;
    let ((mut near_sender, mut near_receiver), (mut far_sender, mut far_receiver)) = (near.lanes(), far.lanes());
    let before = far.remote_address();
    for _ in 0..3 {
        near_sender.send(StreamLane::High, Bytes::from_static(b"ask"));
        assert_eq!(take(&mut far_receiver, 1).await[0].1, "ask");
        far_sender.send(StreamLane::High, Bytes::from_static(b"answer"));
        assert_eq!(take(&mut near_receiver, 1).await[0].1, "answer");
        relay.move_port().await;
    }
    assert_ne!(far.remote_address(), before);
    assert_eq!((near.closed_because(), far.closed_because()), (None, None));
}

#[tokio::test]
async fn a_socket_of_both_families_is_dialled_by_either() {
    let authority = Authority::generate().unwrap();
    let any = Endpoint::bind("[::]:0".parse().unwrap(), issue(&authority, "b"), Options::default());
    // Some machines have no IPv6.
    let Ok(b) = any else { return };
    let address = SocketAddr::new([127, 0, 0, 1].into(), b.local_addr().port());
    let nodes = Nodes { a: bind(issue(&authority, "a")), b };
    let (_near, far) = nodes.connect_by(address).await;
    assert_eq!(far.remote_address(), nodes.a.local_addr());
}

#[tokio::test]
async fn a_hundred_neighbours_at_once_all_get_through() {
    // Two hundred ends of handshakes may take a busy machine its time.
    let options = Options { connect_timeout: LIMIT, idle_timeout: LIMIT, ..Options::default() };
    let authority = Authority::generate().unwrap();
    let bind = |name| Endpoint::bind(ANYWHERE.parse().unwrap(), issue(&authority, name), options.clone()).unwrap();
    let nodes = Nodes { a: bind("a"), b: bind("b") };
    let address = nodes.b.local_addr();
    let echo = nodes.b.clone();
    tokio::spawn(async move {
        while let Some(Ok(connection)) = echo.accept().await {
            tokio::spawn(async move {
                let (mut sender, mut receiver) = connection.lanes();
                while let Some(Received { lane, frames }) = receiver.next().await {
                    frames.into_iter().for_each(|frame| sender.send(lane, frame));
                }
            });
        }
    });
    let dials = (0..100_u8).map(|number| {
        let a = nodes.a.clone();
        tokio::spawn(async move {
            let connection = a.dial(address).await.unwrap();
            let (mut sender, mut receiver) = connection.lanes();
            sender.send(StreamLane::High, Bytes::copy_from_slice(&[number]));
            assert_eq!(take(&mut receiver, 1).await[0].1, [number][..]);
        })
    });
    for dialled in dials.collect::<Vec<_>>() {
        within(dialled).await.unwrap();
    }
}

#[tokio::test]
async fn one_slow_handshake_holds_nobody_up() {
    let nodes = Nodes::new();
    // Datagrams that begin handshakes, whose senders never say more.
    let relay = Relay::to(nodes.b.local_addr()).await;
    let mute = tokio::net::UdpSocket::bind(ANYWHERE).await.unwrap();
    let dialling = tokio::spawn({
        let (a, address) = (nodes.a.clone(), mute.local_addr().unwrap());
        async move { a.dial(address).await.map(drop) }
    });
    let mut hello = vec![0; 2000];
    let (bytes, _) = within(mute.recv_from(&mut hello)).await.unwrap();
    mute.send_to(&hello[..bytes], nodes.b.local_addr()).await.unwrap();
    within(mute.recv_from(&mut [0; 2000])).await.unwrap();
    // The node has answered the mute one, and waits for it.
    let begun = tokio::time::Instant::now();
    nodes.connect_by(relay.address).await;
    assert!(begun.elapsed() < Options::default().connect_timeout);
    assert!(matches!(within(dialling).await.unwrap(), Err(DialError::NoAnswer { .. })));
    let late = within(nodes.b.accept()).await.unwrap().unwrap_err();
    assert_eq!((late.address, late.closed), (mute.local_addr().unwrap(), Closed::Silent));
}

#[tokio::test]
async fn a_closed_endpoint_ends_its_connections_and_accepts_no_more() {
    let nodes = Nodes::new();
    let (near, far) = nodes.connect().await;
    nodes.b.close(CloseCode::GoingAway, "restart");
    let here = Closed::Here { code: CloseCode::GoingAway, reason: "restart".to_owned() };
    assert_eq!(within(far.closed()).await, here);
    let expected = Closed::Neighbour { code: CloseCode::GoingAway, reason: "restart".to_owned() };
    assert_eq!(within(near.closed()).await, expected);
    assert!(within(nodes.b.accept()).await.is_none());
    within(nodes.b.wait_idle()).await;
}
