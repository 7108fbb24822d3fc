//! The run-time description of an event.

use std::any::{Any, TypeId};
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use schemars::Schema;
use serde::{Deserialize, Serialize};

use crate::check::FieldErrors;
use crate::{
    Body, Caching, CodecError, Data, Event, EventName, Exposure, FieldSource, HttpRoute, Item, NameError, Notification,
    PageNames, Request, Source, Tunnel, key_hash,
};

/// How long a request may take when its event does not say.
pub const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// What kind of event it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Without a reply, to every interested subscriber group.
    Notification,
    /// With exactly one response.
    Request,
    /// Opens a bidirectional stream to one worker.
    Tunnel,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Notification => "notification",
            Self::Request => "request",
            Self::Tunnel => "tunnel",
        })
    }
}

/// The JSON Schemas of an event and of what belongs to it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Schemas {
    /// Of the event itself.
    pub event: Schema,
    /// Of a request's response or a tunnel's final result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Schema>,
    /// Of what the opener of a tunnel sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<Schema>,
    /// Of what the worker of a tunnel sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down: Option<Schema>,
}

/// What edri knows of an event: everything below the typed interface works from this.
///
/// A typed event brings its own ([`Event::descriptor`]); [`Descriptor::declare`] makes one at run time.
pub struct Descriptor {
    name: EventName,
    hash: u64,
    kind: Kind,
    key: Option<Box<str>>,
    time_limit: Option<Duration>,
    idempotent: bool,
    description: Box<str>,
    exposure: Option<Exposure>,
    rust_type: Option<RustType>,
    schemas: OnceLock<Schemas>,
    make_schemas: fn() -> Schemas,
}

/// The event's type in this process.
#[derive(Clone, Copy)]
struct RustType {
    id: TypeId,
    name: &'static str,
    decode: fn(&Body) -> Result<Box<dyn Any + Send + Sync>, CodecError>,
    check: Check,
    check_up: Option<Check>,
}

/// Reads a payload and calls the rules of the user's own.
type Check = fn(&Body) -> Result<(), CodecError>;

/// What is wrong by the rules of the user's own.
fn checked(check: impl FnOnce(&mut FieldErrors)) -> Result<(), CodecError> {
    let mut errors = FieldErrors::default();
    check(&mut errors);
    errors.into_invalid().map_or(Ok(()), |invalid| Err(CodecError::Invalid(invalid)))
}

/// What the macro [`event`](crate::event) says of a typed event.
#[doc(hidden)]
#[derive(Debug)]
pub struct TypedDeclaration {
    pub name: &'static str,
    pub key: Option<&'static str>,
    pub time_limit: Option<Duration>,
    pub idempotent: bool,
    pub description: &'static str,
    pub exposure: Option<TypedExposure>,
}

/// What the macro [`event`](crate::event) says of how a typed event may be reached.
#[doc(hidden)]
#[derive(Debug)]
pub struct TypedExposure {
    pub routes: &'static [&'static str],
    /// Field and header.
    pub headers: &'static [(&'static str, &'static str)],
    /// Field and cookie.
    pub cookies: &'static [(&'static str, &'static str)],
    pub page: Option<&'static str>,
    pub form: Option<&'static str>,
    pub then: Option<&'static str>,
    pub caching: Option<TypedCaching>,
}

/// What the macro [`event`](crate::event) says of responses that may be given again.
#[doc(hidden)]
#[derive(Debug)]
pub struct TypedCaching {
    pub lifetime: Duration,
    pub public: bool,
    pub stale_on: &'static [&'static str],
}

impl TypedCaching {
    fn caching(&self) -> Caching {
        let name = |name: &&str| EventName::new(name).expect("the macro checked the name");
        Caching { lifetime: self.lifetime, public: self.public, stale_on: self.stale_on.iter().map(name).collect() }
    }
}

impl TypedExposure {
    fn exposure(&self) -> Exposure {
        let route = |route: &&str| HttpRoute::new(route).expect("the macro checked the route");
        let source = |(field, from): (&str, Source)| FieldSource { field: field.into(), from };
        let headers = self.headers.iter().map(|(field, name)| (*field, Source::Header((*name).into())));
        let cookies = self.cookies.iter().map(|(field, name)| (*field, Source::Cookie((*name).into())));
        Exposure {
            routes: self.routes.iter().map(route).collect(),
            sources: headers.chain(cookies).map(source).collect(),
            page: PageNames {
                page: self.page.map(Into::into),
                form: self.form.map(Into::into),
                then: self.then.map(Into::into),
            },
            caching: self.caching.as_ref().map(TypedCaching::caching),
        }
    }
}

impl Descriptor {
    /// Declares an event at run time.
    ///
    /// # Errors
    ///
    /// [`NameError`] when `name` is no event name.
    ///
    /// ```
    /// use edri_events::{Descriptor, Kind};
    ///
    /// let reading = Descriptor::declare("sensor.read", Kind::Notification)?.key("sensor").build();
    /// assert_eq!(reading.name(), &"sensor.read");
    /// # Ok::<(), edri_events::NameError>(())
    /// ```
    pub fn declare(name: &str, kind: Kind) -> Result<Declaration, NameError> {
        Ok(Declaration(Self {
            hash: key_hash(name),
            name: EventName::new(name)?,
            kind,
            key: None,
            time_limit: None,
            idempotent: false,
            description: "".into(),
            exposure: None,
            rust_type: None,
            schemas: OnceLock::new(),
            make_schemas: Schemas::default,
        }))
    }

    #[doc(hidden)]
    #[must_use]
    pub fn notification<E: Notification>(declaration: TypedDeclaration) -> Self {
        Self::typed::<E>(Kind::Notification, declaration, || Schemas {
            event: schemars::schema_for!(E),
            ..Schemas::default()
        })
    }

    #[doc(hidden)]
    #[must_use]
    pub fn request<E: Request>(declaration: TypedDeclaration) -> Self {
        Self::typed::<E>(Kind::Request, declaration, || Schemas {
            event: schemars::schema_for!(E),
            output: Some(E::Output::schema()),
            ..Schemas::default()
        })
    }

    #[doc(hidden)]
    #[must_use]
    pub fn tunnel<E: Tunnel>(declaration: TypedDeclaration) -> Self {
        let mut descriptor = Self::typed::<E>(Kind::Tunnel, declaration, || Schemas {
            event: schemars::schema_for!(E),
            output: Some(E::Output::schema()),
            up: Some(schemars::schema_for!(E::Up)),
            down: Some(schemars::schema_for!(E::Down)),
        });
        if let Some(rust_type) = &mut descriptor.rust_type {
            rust_type.check_up = Some(|body| {
                let item = body.decode::<E::Up>()?;
                checked(|errors| Item::__check(&item, errors))
            });
        }
        descriptor
    }

    fn typed<E: Event>(kind: Kind, declaration: TypedDeclaration, make_schemas: fn() -> Schemas) -> Self {
        Self {
            hash: key_hash(declaration.name),
            name: EventName::new(declaration.name).expect("the macro checked the name"),
            kind,
            key: declaration.key.map(Into::into),
            time_limit: declaration.time_limit,
            idempotent: declaration.idempotent,
            description: declaration.description.into(),
            exposure: declaration.exposure.as_ref().map(TypedExposure::exposure),
            rust_type: Some(RustType {
                id: TypeId::of::<E>(),
                name: std::any::type_name::<E>(),
                decode: |body| Ok(Box::new(body.decode::<E>()?)),
                check: |body| {
                    let event = body.decode::<E>()?;
                    checked(|errors| event.__check(errors))
                },
                check_up: None,
            }),
            schemas: OnceLock::new(),
            make_schemas,
        }
    }

    /// The event's name.
    #[must_use]
    pub fn name(&self) -> &EventName {
        &self.name
    }

    /// The stable hash of the name, [`key_hash`].
    #[must_use]
    pub fn name_hash(&self) -> u64 {
        self.hash
    }

    /// The event's kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The field whose value is the event's key.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The time to live of a notification, the time-out of a request, the idle time-out of a tunnel, when the event
    /// declares one.
    #[must_use]
    pub fn time_limit(&self) -> Option<Duration> {
        self.time_limit
    }

    /// Whether a request may be tried again elsewhere when the worker that had it is lost.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        self.idempotent
    }

    /// What the author says of the event.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// How the event may be reached from outside; `None` when it may not.
    #[must_use]
    pub fn exposure(&self) -> Option<&Exposure> {
        self.exposure.as_ref()
    }

    /// The event's Rust type in this process, if it has one.
    #[must_use]
    pub fn rust_type(&self) -> Option<TypeId> {
        self.rust_type.map(|rust_type| rust_type.id)
    }

    /// Decodes an event of the Rust type that it has in this process; `None` when it has none.
    pub(crate) fn decode(&self, body: &Body) -> Option<Result<Box<dyn Any + Send + Sync>, CodecError>> {
        self.rust_type.map(|rust_type| (rust_type.decode)(body))
    }

    /// Looks whether a payload is an event of the Rust type that the event has in this process, if it has one, also by the rules of the
    /// user's own (`#[validate(custom(..))]`), which no schema can say. Schemas of types that have some are marked with
    /// `x-edri-custom`.
    ///
    /// # Errors
    ///
    /// [`CodecError::Decode`] when it is none, [`CodecError::Invalid`] when a rule refuses it.
    pub fn check(&self, body: &Body) -> Result<(), CodecError> {
        self.rust_type.map_or(Ok(()), |rust_type| (rust_type.check)(body))
    }

    /// As [`Descriptor::check`], of an item that the opener of a tunnel sends.
    ///
    /// # Errors
    ///
    /// As [`Descriptor::check`].
    pub fn check_up(&self, body: &Body) -> Result<(), CodecError> {
        self.rust_type.and_then(|rust_type| rust_type.check_up).map_or(Ok(()), |check| check(body))
    }

    /// The JSON Schemas, made when first asked for.
    #[must_use]
    pub fn schemas(&self) -> &Schemas {
        self.schemas.get_or_init(self.make_schemas)
    }

    /// Whether events of both descriptions may travel under their common name.
    ///
    /// # Errors
    ///
    /// [`Incompatible`] names what differs.
    pub fn compatible(&self, other: &Self) -> Result<(), Incompatible> {
        let differ = |what, ours: String, theirs: String| Incompatible { name: self.name.clone(), what, ours, theirs };
        if self.kind != other.kind {
            return Err(differ("kind", self.kind.to_string(), other.kind.to_string()));
        }
        if self.key != other.key {
            let text = |key: &Option<Box<str>>| key.as_deref().unwrap_or("none").to_owned();
            return Err(differ("key", text(&self.key), text(&other.key)));
        }
        match (self.rust_type, other.rust_type) {
            (Some(ours), Some(theirs)) if ours.id != theirs.id => {
                Err(differ("Rust type", ours.name.to_owned(), theirs.name.to_owned()))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descriptor")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("key", &self.key)
            .field("time_limit", &self.time_limit)
            .field("idempotent", &self.idempotent)
            .field("rust_type", &self.rust_type.map(|rust_type| rust_type.name))
            .finish_non_exhaustive()
    }
}

/// The listing of an event: what [`Descriptor`] says, with the schemas.
impl Serialize for Descriptor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Listing<'a> {
            name: &'a EventName,
            kind: Kind,
            #[serde(skip_serializing_if = "Option::is_none")]
            key: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            time_limit_ms: Option<u128>,
            idempotent: bool,
            #[serde(skip_serializing_if = "str::is_empty")]
            description: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            http: Option<&'a [HttpRoute]>,
            schemas: &'a Schemas,
        }
        Listing {
            name: &self.name,
            kind: self.kind,
            key: self.key(),
            time_limit_ms: self.time_limit.map(|limit| limit.as_millis()),
            idempotent: self.idempotent,
            description: &self.description,
            http: self.exposure.as_ref().map(|exposure| &*exposure.routes),
            schemas: self.schemas(),
        }
        .serialize(serializer)
    }
}

/// Two descriptions of one name that cannot both hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event `{name}` is already known with {what} {theirs}, not {ours}: give one of the two another name")]
pub struct Incompatible {
    /// The name both claim.
    pub name: EventName,
    /// What differs: kind, key or Rust type.
    pub what: &'static str,
    /// What the newcomer says.
    pub ours: String,
    /// What is known already.
    pub theirs: String,
}

/// An event being declared at run time; see [`Descriptor::declare`].
#[derive(Debug)]
#[must_use = "a declaration does nothing until it is built"]
pub struct Declaration(Descriptor);

impl Declaration {
    /// Names the field of the payload whose value is the key.
    pub fn key(mut self, field: &str) -> Self {
        self.0.key = Some(field.into());
        self
    }

    /// Sets the time to live of a notification, the time-out of a request or the idle time-out of a tunnel.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.0.time_limit = Some(limit);
        self
    }

    /// Allows a request to be tried again elsewhere when the worker that had it is lost.
    pub fn idempotent(mut self) -> Self {
        self.0.idempotent = true;
        self
    }

    /// Says for people what the event means.
    pub fn description(mut self, text: &str) -> Self {
        self.0.description = text.into();
        self
    }

    /// Lets the event be reached from outside.
    pub fn expose(mut self, exposure: Exposure) -> Self {
        self.0.exposure = Some(exposure);
        self
    }

    /// Gives the JSON Schemas.
    pub fn schemas(mut self, schemas: Schemas) -> Self {
        self.0.schemas = OnceLock::from(schemas);
        self
    }

    /// The finished descriptor.
    #[must_use]
    pub fn build(self) -> DescriptorRef {
        DescriptorRef::Shared(Arc::new(self.0))
    }
}

/// A descriptor to hold on to: a typed event's costs nothing to copy, a declared one is counted.
#[derive(Clone)]
pub enum DescriptorRef {
    /// Of a typed event; lives as long as the process.
    Static(&'static Descriptor),
    /// Declared at run time.
    Shared(Arc<Descriptor>),
}

impl DescriptorRef {
    /// The descriptor of a typed event.
    #[must_use]
    pub fn of<E: Event>() -> Self {
        Self::Static(E::descriptor())
    }

    /// Whether both are the very same descriptor.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        std::ptr::eq::<Descriptor>(&**self, &**other)
    }
}

impl Deref for DescriptorRef {
    type Target = Descriptor;

    fn deref(&self) -> &Descriptor {
        match self {
            Self::Static(descriptor) => descriptor,
            Self::Shared(descriptor) => descriptor,
        }
    }
}

impl From<&'static Descriptor> for DescriptorRef {
    fn from(descriptor: &'static Descriptor) -> Self {
        Self::Static(descriptor)
    }
}

impl fmt::Debug for DescriptorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl Serialize for DescriptorRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}
