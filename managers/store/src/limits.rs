//! Every bound of the store, in one place.

use std::time::Duration;

/// The longest name of a namespace, in bytes.
pub const NAMESPACE_BYTES_MAX: usize = 64;
/// The most namespaces of one store.
pub const NAMESPACES_MAX: usize = 256;
/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// The longest value, in bytes of its encoding. Well below the longest payload that travels between nodes.
pub const VALUE_BYTES_MAX: usize = 4 << 20;
/// How deep a value may nest.
pub const VALUE_NESTING_MAX: usize = 64;
/// The most keys of a namespace when nothing is said.
pub const KEYS_MAX_DEFAULT: usize = 1 << 20;
/// The most bytes of a namespace's keys and values when nothing is said.
pub const BYTES_MAX_DEFAULT: u64 = 1 << 30;
/// The most keys of one `get_many`.
pub const GET_MANY_MAX: usize = 1024;
/// The most items of a page of `list`.
pub const PAGE_ITEMS_MAX: usize = 1024;
/// The items of a page of `list` when nothing is said.
pub const PAGE_ITEMS_DEFAULT: usize = 100;
/// A page of `list`, an answer of `get_many` and the results of a transaction end once they have so many bytes.
pub const ANSWER_BYTES_MAX: usize = 8 << 20;
/// The most conditions and the most operations of a transaction.
pub const TRANSACTION_MAX: usize = 256;
/// The longest id of a request, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// How many answered writes a namespace remembers, to answer a repeated one as the first time.
pub const REMEMBERED_MAX: usize = 65_536;
/// How long an answered write is remembered.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// The longest time until an item expires. What is asked for beyond it is refused: a mistaken unit more often than a wish.
pub const EXPIRES_IN_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
/// The most watchers of a namespace.
pub const WATCHERS_MAX: usize = 1024;
/// How many changes wait for a watcher that is slow; one more ends its watch.
pub const WATCH_CHANGES_MAX: usize = 4096;
/// How many bytes of changes wait for a watcher that is slow; more end its watch.
pub const WATCH_BYTES_MAX: usize = 16 << 20;
/// The most writes that wait for the disk; further ones wait in the inbox.
pub const WRITES_WAITING_MAX: usize = 4096;
/// So many changes of a durable namespace are put among its items together; what happens to one key counts each time.
pub const JOURNAL_CHANGES_MAX: usize = 1024;
/// ... or so many bytes of keys and values.
pub const JOURNAL_BYTES_MAX: usize = 1 << 20;

const _: () = assert!(VALUE_BYTES_MAX < ANSWER_BYTES_MAX && ANSWER_BYTES_MAX < 16 << 20);
const _: () = assert!(PAGE_ITEMS_DEFAULT <= PAGE_ITEMS_MAX);
const _: () = assert!(VALUE_BYTES_MAX <= WATCH_BYTES_MAX);
