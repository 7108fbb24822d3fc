//! The attribute macros of edri: [`event`] declares an event, [`data`] what events carry.
//!
//! Both give the type the derives that edri needs, by paths into edri, so that a program depends on edri alone. What
//! they promise is readable errors: each points at the word that is wrong and says what to write instead, and a
//! declaration with errors still has its type and its traits, so that the rest of the program does not complain too.
//!
//! This crate knows the names in `edri_events::__private` and nothing else of edri.

mod checked;
mod data;
mod duration;
mod errors;
mod event;
mod exposure;
mod item;
mod name;
mod options;
mod rules;
mod suggest;
mod wire;

use proc_macro::TokenStream;

/// Declares a struct or enum as an event.
///
/// The first word is the event's kind. Its options follow, in any order:
///
/// | option | kinds | meaning |
/// |---|---|---|
/// | `name = "quake.recorded"` | all, required | the event's name: segments of ASCII letters, digits, `_` and `-`, separated by single dots, 200 bytes at most; names that begin with `edri.` belong to edri |
/// | `key = region` | all | the field whose value is the event's key; a text, an integer, a `bool`, a `char`, or an `Option` of one |
/// | `ttl = "5s"` | notification | how long it may be on its way before it has lost its meaning |
/// | `timeout = "2s"` | request | how long the requester waits for the response |
/// | `idle_timeout = "30s"` | tunnel | how long the tunnel may be silent before it is closed |
/// | `response = Risk` | request, required | the type of the response |
/// | `idempotent` | request | the request may be tried again elsewhere when the worker that had it is lost |
/// | `up = Chunk` | tunnel, required | what the opener sends |
/// | `down = Progress` | tunnel, required | what the worker sends |
/// | `result = Summary` | tunnel | the final result; `()` when left away |
/// | `expose` | all | the event may be reached from outside, through a gateway: nothing else may |
/// | `http = "GET /risk/{region}"` | all | where HTTP requests for it go, with places for fields; may be given again; exposes the event |
/// | `description = "..."` | all | what the event means, for people; the doc comment when left away |
/// | `crate = path` | all | where edri is, when it is not `::edri` |
///
/// A field with `#[http(header = "x-tenant")]` or `#[http(cookie = "session")]` is taken from there in an HTTP request, and from
/// nowhere else.
///
/// Durations are a number and a unit, `ms`, `s`, `m` or `h`: `"500ms"`, `"1.5s"`.
///
/// The event gets `Serialize`, `Deserialize` and `JsonSchema`; a derive of one of these below the attribute is kept and
/// not doubled. What stands above the attribute is out of its sight, so put it first, then `#[derive(..)]` and
/// `#[serde(..)]`. Serde's attributes work as ever, and the descriptor has the key under the name that serde gives its
/// field. An event has one name and one schema, so it cannot be generic.
///
/// ```
/// # extern crate edri_events as edri;
/// use edri::{data, event};
///
/// /// A quake was measured.
/// #[event(notification, name = "quake.recorded", key = region, ttl = "1h")]
/// struct QuakeRecorded {
///     region: String,
///     magnitude: f64,
/// }
///
/// #[event(request, name = "risk.assess", response = Risk, timeout = "2s", idempotent)]
/// struct AssessRisk {
///     region: String,
/// }
///
/// #[data]
/// struct Risk {
///     probability: f64,
/// }
///
/// #[event(tunnel, name = "catalogue.upload", up = String, down = u64)]
/// struct UploadCatalogue {
///     name: String,
/// }
///
/// # fn main() {
/// # use edri::Event;
/// assert_eq!(QuakeRecorded::descriptor().name(), &"quake.recorded");
/// assert_eq!(QuakeRecorded::descriptor().description(), "A quake was measured.");
/// # }
/// ```
#[proc_macro_attribute]
pub fn event(arguments: TokenStream, item: TokenStream) -> TokenStream {
    event::expand(arguments.into(), item.into()).into()
}

/// Makes a struct or enum something that events carry: a response, an item of a tunnel, a final result.
///
/// | option | meaning |
/// |---|---|
/// | `crate = path` | where edri is, when it is not `::edri` |
///
/// The type gets `Serialize`, `Deserialize` and `JsonSchema`; a derive of one of these below the attribute is kept and
/// not doubled. What stands above the attribute is out of its sight, so put it first, then `#[derive(..)]` and
/// `#[serde(..)]`. The type's weight as an item of a tunnel is its size and what its fields of type `String`, `Bytes`
/// and `Vec` hold. Type parameters are allowed, lifetimes are not: what edri carries owns its contents.
///
/// ```
/// # extern crate edri_events as edri;
/// use edri::{Item, data};
///
/// #[data]
/// struct Chunk {
///     offset: u64,
///     text: String,
/// }
///
/// # fn main() {
/// let chunk = Chunk { offset: 0, text: "0123456789".into() };
/// assert_eq!(chunk.weight(), size_of::<Chunk>() + 10);
/// # }
/// ```
#[proc_macro_attribute]
pub fn data(arguments: TokenStream, item: TokenStream) -> TokenStream {
    data::expand(arguments.into(), item.into()).into()
}
