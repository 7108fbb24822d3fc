//! Who hears an event: the route table, the inboxes and the [`Bus`].
//!
//! Control is done by an actor, data takes no detour. The Router actor is the only writer of the route table; publishers
//! read an immutable snapshot of it behind an atomic pointer and put events straight into the inboxes of the groups that
//! want them, waiting where there is no room. What comes back to a requester goes through the pending table, where a late
//! answer finds nobody.
//!
//! This crate promises that every delivery it accepted is accounted for: handled, failed, dead-lettered, cancelled, or
//! still there ([`Account`]). It does not know what a worker is, only that somebody takes deliveries out of an inbox and
//! says how they ended.

mod account;
mod actor;
mod answers;
mod arrive;
mod beyond;
mod border;
mod bus;
mod circle;
mod conditions;
mod control;
mod core;
mod delivery;
mod described;
mod divide;
mod error;
mod group;
mod group_name;
mod groups;
mod history;
mod interest;
mod known;
mod letters;
mod limits;
mod pending;
mod queue;
mod relay;
mod reply;
mod request;
mod router;
mod shards;
mod signal;
mod status;
mod subscribe;
pub mod system;
mod table;
mod tap;
mod timing;
mod told;
mod topology;
pub mod traced;
mod tunnel;
mod turn;
mod untyped;
mod uplink;
mod wait;

pub use account::Account;
pub use answers::{Answer, Answers};
pub use arrive::{Arrival, Arrivals, Arrived};
pub use beyond::{Beyond, LinkState, LinkView, NodeView};
pub use border::{Border, CheckItem, Left, Passage, Refusal};
pub use bus::{Bus, Options, Receipt, ResendError};
pub use conditions::{Conditions, ConditionsError};
pub use control::Control;
pub use core::Phase;
pub use delivery::{Delivery, Offer, ReplyTo};
pub use described::Described;
pub use divide::{Hold, Holding, slot_of};
pub use error::{DeclareError, PublishError, RequestError, TryPublishError, WaitEnded};
pub use group::{Group, GroupOptions, GroupRef, InboxConsumer, Overflow, Responder, Spread};
pub use group_name::GroupName;
pub use history::{History, Missed, Position, Recorded, Replay, Since, Start};
pub use interest::{Interest, InterestFeed};
pub use letters::{DeadLetter, Reason};
pub use limits::{
    CONDITION_BYTES_MAX, CONDITION_DEPTH_MAX, CONDITION_VALUES_MAX, CONDITIONS_MAX, EVENT_NAMES_MAX, FIGURES_MAX,
    HISTORIES_MAX, HISTORY_BYTES_DEFAULT, HISTORY_EVENTS_DEFAULT, HISTORY_EVENTS_MAX, HISTORY_READERS_MAX,
    INBOX_CAPACITY_DEFAULT, INBOX_CAPACITY_MAX, INSTANCES_MAX, KEY_SLOTS, Limits, SUBSCRIPTIONS_MAX, is_timed,
};
pub use pending::{Forgone, Outcome, Ticket};
pub use relay::{Keeper, Relay, Relayed, RelayedAnswers};
pub use reply::{Deferred, Reply};
pub use router::{Joining, Router};
pub use status::{Ended, Health, ManagerState, Tally, WorkerState, WorkerStatus};
pub use subscribe::{Received, Selection, Subscribe, Subscription, UntypedSubscription};
pub use table::Predicate;
pub use tap::{Tap, Tapped};
pub use timing::Quantiles;
pub use told::{Told, ToldWait};
pub use topology::{GroupView, HistoryView, Topology, WorkerView};
#[doc(hidden)]
pub use tunnel::from_elsewhere;
pub use tunnel::{
    Accepted, Grant, Opened, OpenedTunnel, Opener, OtherSide, Receiver, Sender, TunnelError, TunnelOutcome, Tunnels,
    Window,
};
pub use turn::Turn;
pub use untyped::Untyped;
pub use uplink::Outcomes;
#[doc(hidden)]
pub use uplink::{AnswersAbove, Listener, NotNow, OutcomeAbove, Past, Source, Uplink, Wanted, WantedPast};
