//! Every bound of the connector, in one place.

use edri_events::NAME_BYTES_MAX;
use edri_protocol::limits::FRAME_BYTES_MAX;
use std::time::Duration;

/// The most links a packet may cross.
pub const HOPS_MAX: u8 = 32;

/// The most nodes that are known at once, this one included.
pub const NODES_MAX: usize = 4096;
/// The most links of one node.
pub const LINKS_MAX: usize = 1024;
/// The most groups of one node.
pub const GROUPS_MAX: usize = 65_536;
/// The most selections of one group.
pub const SELECTIONS_MAX: usize = 65_536;
/// The most keyed shared managers that a node hears of from others.
pub const DIVISIONS_MAX: usize = 1024;
/// How many events of its own a keyed shared manager may have waiting for room: beyond that they wait where they are published.
pub const OWN_WAITING_MAX: u64 = 512;
/// The most a link may cost; at least it costs 1.
pub const COST_MAX: u32 = 65_535;
/// The largest epoch and the largest version of a record: counting on from it never overflows.
pub const STAMP_MAX: u64 = 1 << 62;
/// The highest version to which words put in a node's mouth make it count on: what is left above is for its own.
pub const FOREIGN_VERSION_MAX: u64 = STAMP_MAX / 2;

/// The longest record, in bytes.
pub const RECORD_BYTES_MAX: usize = 4 << 20;
/// The most bytes of the records of one node that another keeps.
pub const NODE_BYTES_MAX: usize = 64 << 20;
/// The most bytes of its own records that a node tells: less than others keep, who may hold old ones beside new ones.
pub const OWN_BYTES_MAX: usize = NODE_BYTES_MAX / 2;
/// The most bytes of the records of all nodes.
pub const TOPOLOGY_BYTES_MAX: usize = 512 << 20;
/// How many withdrawn groups are remembered one by one before they are put together; more while more groups live.
pub const GONE_KEPT: usize = 1024;
/// The most records of one node: its own, its groups, as many withdrawn ones, and those put together.
pub const NODE_RECORDS_MAX: usize = 2 * GROUPS_MAX + 4;
/// The most records of one message.
pub const MESSAGE_RECORDS_MAX: usize = 1024;
/// How many bytes of records one message holds; more only when a single record is longer.
pub const MESSAGE_BYTES: usize = 256 << 10;

/// How long a node waits at first between two records of itself: many links that come up together make few records.
pub const STATE_PAUSE_MIN: Duration = Duration::from_millis(10);
/// How long it waits at most; each wait is twice the one before.
pub const STATE_PAUSE_MAX: Duration = Duration::from_millis(320);
/// After how long without a new record of itself it does not wait.
pub const STATE_QUIET: Duration = Duration::from_secs(1);

/// How often within [`TWIN_WINDOW`] a node claims its name back from one other life before it holds that one for alive.
pub const TWIN_CLAIMS: usize = 3;
/// See [`TWIN_CLAIMS`].
pub const TWIN_WINDOW: Duration = Duration::from_secs(10);

const _: () = {
    assert!(GONE_KEPT <= GROUPS_MAX, "a node's withdrawn groups fit beside its groups");
    assert!(COST_MAX as usize * NODES_MAX <= u32::MAX as usize, "the cost of a path fits in 32 bits");
    assert!(RECORD_BYTES_MAX + MESSAGE_BYTES <= FRAME_BYTES_MAX, "a message of records fits in a frame");
    assert!(NODES_MAX * (NAME_BYTES_MAX + 128) <= FRAME_BYTES_MAX, "a summary fits in a frame");
    assert!(LINKS_MAX * (NAME_BYTES_MAX + 64) <= RECORD_BYTES_MAX, "a node's links fit in its record");
    assert!(GROUPS_MAX * 8 <= RECORD_BYTES_MAX, "the numbers of a node's groups fit in a record");
    assert!(STATE_PAUSE_MAX.as_millis() < STATE_QUIET.as_millis(), "waits get longer until it is quiet");
    assert!(NODE_BYTES_MAX <= TOPOLOGY_BYTES_MAX, "there is room for one node's records");
};

/// The longest frame of a lane: a packet. Messages in the control lane are shorter.
pub const LANE_FRAME_BYTES_MAX: usize = edri_protocol::limits::PACKET_BYTES_MAX;
/// The most tunnels of one direction of a link that have a stream of their own; frames of further ones travel in the lane
/// of notifications.
pub const TUNNEL_STREAMS_MAX: u32 = 4096;
/// The most streams that a neighbour may have open: those of its tunnels, and one a fixed lane.
pub const STREAMS_MAX: u32 = TUNNEL_STREAMS_MAX + 3;
/// The most handshakes of neighbours that have dialled under way at once, with those done and not yet taken by
/// [`Endpoint::accept`](crate::quic::Endpoint::accept). One more is refused.
pub const HANDSHAKES_MAX: usize = 256;
/// From how many handshakes at once on a dialler has to show that it receives at the address it sends from.
pub const HANDSHAKES_UNPROVEN_MAX: usize = 64;
/// The longest text that goes with a close, in bytes; more is cut off.
pub const CLOSE_REASON_BYTES_MAX: usize = 512;
/// The longest file of keys or certificates that is read, in bytes.
pub const KEY_FILE_BYTES_MAX: u64 = 1 << 20;
/// The most certificates in one file: the authorities that are trusted, or a node's certificate and those above it.
pub const CERTIFICATES_MAX: usize = 16;

const _: () = assert!(LANE_FRAME_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(HANDSHAKES_UNPROVEN_MAX <= HANDSHAKES_MAX);
/// How many bytes may wait at a link before this node sends nothing more of its own over it.
pub const LINK_QUEUE_BYTES: usize = 1 << 20;
/// The highest number of a session that is taken: one beyond would leave none for the next.
pub const SESSION_MAX: u32 = u32::MAX / 2;
/// How many bytes may wait at a link before packets of other nodes are dropped there, to be sent again by their origins.
pub const FORWARD_QUEUE_BYTES_MAX: usize = 32 << 20;
/// How many lives of nodes are remembered that were given up.
pub const PAST_LIVES_MAX: usize = 4096;
/// How many neighbours that want to come, or have come, wait for the driver.
pub const FROM_LINKS: usize = 64;
/// How many events a group of this node lets each origin send that have no place in its inbox yet; fewer if the inbox is
/// smaller, more if it is quick: see [`GROUP_AHEAD`].
pub const GROUP_WINDOW_EVENTS: u32 = 4096;
/// How many bytes of packets with events.
pub const GROUP_WINDOW_BYTES: u64 = 4 << 20;
/// A group may be sent ahead as many events as it has lately placed in this time, if that is more than its window. It is longer than most
/// round trips, and short enough that what then waits is placed soon.
pub const GROUP_AHEAD: Duration = Duration::from_millis(250);
/// The most of these, whatever its pace.
pub const GROUP_AHEAD_EVENTS_MAX: u64 = 16_384;
/// How many groups of this node are remembered after they were withdrawn, for what other nodes had sent them.
pub const LEFT_GROUPS_MAX: usize = 4096;
