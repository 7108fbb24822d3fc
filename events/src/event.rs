//! The traits of typed events. The macros [`event`](crate::event) and [`data`](crate::data) implement them.

use bytes::Bytes;
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::check::FieldErrors;
use crate::{CodecError, Descriptor, Encoding};

/// What can be carried: an event's response, an item of a tunnel, a final result.
///
/// Implemented for every type that can be written, read and described; [`data`](crate::data) makes a struct or enum one.
// What it takes stands on the implementation alone: as supertraits, each of them would be an error of its own where a
// type is no `Data`, and none would say what to do about it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be carried by edri",
    label = "put `#[edri::data]` on the declaration of `{Self}`",
    note = "a response, an item of a tunnel and a final result must be `Serialize + Deserialize + JsonSchema + Send + \
            Sync + 'static`"
)]
pub trait Data: Sized + Send + Sync + 'static {
    /// Writes the value.
    ///
    /// # Errors
    ///
    /// [`CodecError::Encode`] when it cannot be written in this encoding.
    fn encode(&self, encoding: Encoding) -> Result<Bytes, CodecError>;

    /// Reads a value.
    ///
    /// # Errors
    ///
    /// [`CodecError::Decode`] when `bytes` are none.
    fn decode(encoding: Encoding, bytes: &[u8]) -> Result<Self, CodecError>;

    /// The JSON Schema of the type.
    fn schema() -> Schema;
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static> Data for T {
    fn encode(&self, encoding: Encoding) -> Result<Bytes, CodecError> {
        encoding.encode(self)
    }

    fn decode(encoding: Encoding, bytes: &[u8]) -> Result<Self, CodecError> {
        encoding.decode(bytes)
    }

    fn schema() -> Schema {
        schemars::schema_for!(T)
    }
}

/// A typed event. Declared with [`event`](crate::event), never implemented by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "put `#[edri::event(...)]` on the declaration of `{Self}`"
)]
pub trait Event: Data + Serialize + DeserializeOwned + JsonSchema {
    /// What the handler gives back: nothing for a notification, the response of a request, the final result of a tunnel.
    type Output: Data;

    /// What edri knows of the event at run time.
    fn descriptor() -> &'static Descriptor;

    /// Shows the event's key to `visit`, if it has one.
    fn visit_key(&self, visit: &mut dyn FnMut(&str)) {
        let _ = visit;
    }

    /// Calls the rules of the user's own.
    #[doc(hidden)]
    fn __check(&self, errors: &mut FieldErrors) {
        let _ = errors;
    }
}

/// An event without a reply, delivered to every interested subscriber group.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a notification",
    label = "only notifications are published",
    note = "send a request with `bus.request(..)`, open a tunnel with `bus.open(..)`, or declare `{Self}` with \
            `#[event(notification, ...)]`"
)]
pub trait Notification: Event<Output = ()> {}

/// An event with exactly one response, of type [`Event::Output`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a request",
    label = "only requests are answered",
    note = "publish a notification with `bus.publish(..)`, open a tunnel with `bus.open(..)`, or declare `{Self}` with \
            `#[event(request, ...)]`"
)]
pub trait Request: Event {}

/// An event that opens a bidirectional stream between the opener and one worker.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a tunnel",
    label = "only tunnels are opened and accepted",
    note = "publish a notification with `bus.publish(..)`, send a request with `bus.request(..)`, or declare `{Self}` \
            with `#[event(tunnel, ...)]`"
)]
pub trait Tunnel: Event {
    /// What the opener sends.
    type Up: Item;
    /// What the worker sends.
    type Down: Item;
}

/// What a tunnel carries.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an item of a tunnel",
    label = "put `#[edri::data]` on the declaration of `{Self}`"
)]
pub trait Item: Data + Serialize + DeserializeOwned + JsonSchema {
    /// How many bytes of credit the item takes: about what it occupies in memory.
    fn weight(&self) -> usize {
        size_of_val(self)
    }

    /// Calls the rules of the user's own.
    #[doc(hidden)]
    fn __check(&self, errors: &mut FieldErrors) {
        let _ = errors;
    }
}

impl Item for Bytes {
    fn weight(&self) -> usize {
        self.len()
    }
}

impl Item for String {
    fn weight(&self) -> usize {
        self.len()
    }
}

impl Item for Vec<u8> {
    fn weight(&self) -> usize {
        self.len()
    }
}

impl Item for serde_json::Value {
    fn weight(&self) -> usize {
        match self {
            Self::String(text) => size_of::<Self>() + text.len(),
            Self::Array(items) => size_of::<Self>() + items.iter().map(Item::weight).sum::<usize>(),
            Self::Object(fields) => {
                size_of::<Self>() + fields.iter().map(|(name, value)| name.len() + value.weight()).sum::<usize>()
            }
            _ => size_of::<Self>(),
        }
    }
}

macro_rules! plain_item {
    ($($type:ty),*) => { $(impl Item for $type {})* };
}

plain_item!((), bool, char, u8, u16, u32, u64, i8, i16, i32, i64, f32, f64);

/// A field that can be an event's key. Its canonical text is the key: an integer in decimal, `true` or `false`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the key of an event",
    note = "a key is a text, an integer, a `bool` or a `char`; floating point has no canonical text"
)]
pub trait KeyField {
    /// Shows the key's text to `visit`.
    fn visit(&self, visit: &mut dyn FnMut(&str));
}

impl KeyField for String {
    fn visit(&self, visit: &mut dyn FnMut(&str)) {
        visit(self);
    }
}

impl KeyField for std::sync::Arc<str> {
    fn visit(&self, visit: &mut dyn FnMut(&str)) {
        visit(self);
    }
}

impl KeyField for Box<str> {
    fn visit(&self, visit: &mut dyn FnMut(&str)) {
        visit(self);
    }
}

impl KeyField for char {
    fn visit(&self, visit: &mut dyn FnMut(&str)) {
        visit(self.encode_utf8(&mut [0; 4]));
    }
}

impl KeyField for bool {
    fn visit(&self, visit: &mut dyn FnMut(&str)) {
        visit(if *self { "true" } else { "false" });
    }
}

macro_rules! integer_key {
    ($($type:ty),*) => {
        $(impl KeyField for $type {
            fn visit(&self, visit: &mut dyn FnMut(&str)) {
                visit(itoa::Buffer::new().format(*self));
            }
        })*
    };
}

integer_key!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize);

impl<T: KeyField> KeyField for Option<T> {
    /// Without a value the event has no key.
    fn visit(&self, visit: &mut dyn FnMut(&str)) {
        if let Some(value) = self {
            value.visit(visit);
        }
    }
}

/// How the weight of a field is found by the code that [`data`](crate::data) makes: what its type owns on the heap when
/// the type is known to, otherwise nothing. Autoref picks the first that fits (Tolnay, "Autoref-based stable
/// specialization").
#[doc(hidden)]
pub mod weigh {
    use bytes::Bytes;

    /// A field, to be weighed by `(&&Field(&self.field)).heap()`.
    #[derive(Debug)]
    pub struct Field<'a, T: ?Sized>(pub &'a T);

    /// Types that say what they own.
    pub trait Known {
        /// Bytes on the heap.
        fn heap(&self) -> usize;
    }

    /// All others.
    pub trait Unknown {
        /// Nothing that is known of.
        fn heap(&self) -> usize {
            0
        }
    }

    impl Known for &Field<'_, String> {
        fn heap(&self) -> usize {
            self.0.len()
        }
    }

    impl Known for &Field<'_, Bytes> {
        fn heap(&self) -> usize {
            self.0.len()
        }
    }

    impl<T> Known for &Field<'_, Vec<T>> {
        fn heap(&self) -> usize {
            size_of::<T>() * self.0.len()
        }
    }

    impl<T: ?Sized> Unknown for Field<'_, T> {}
}
