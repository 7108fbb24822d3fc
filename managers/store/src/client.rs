//! A namespace for those who use it, on any node.

use std::future::IntoFuture;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use edri_events::{Body, CodecError, Data, DescriptorRef, Encoding, Value};
use edri_router::{Bus, DeclareError, Opened, Options, RequestError, TunnelError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::event::{
    Append, Appended, Change, Condition, Count, Delete, Deleted, Done, Get, GetMany, Increment, Incremented, Item,
    List, NamespaceError, Operation, Page, Set, Swap, Transact, Transacted, VERBS, Verb, Watch, Written, descriptors,
    milliseconds,
};
use crate::typed::{Found, FoundItem, Question, Raw};

/// How long a request to the store may take, with all that are sent again.
const TIME_LIMIT_DEFAULT: Duration = Duration::from_secs(30);
/// The pauses before a request is sent again.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_LONGEST: Duration = Duration::from_secs(1);

/// Why a namespace could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is no name of a namespace.
    #[error(transparent)]
    Name(#[from] NamespaceError),
    /// The namespace's events cannot be declared here.
    #[error(transparent)]
    Declare(#[from] DeclareError),
    /// The request was not answered, or answered with a failure.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A value cannot be written, or what is kept is not a value of this type.
    #[error(transparent)]
    Payload(#[from] CodecError),
    /// A watch has ended.
    #[error(transparent)]
    Watch(#[from] TunnelError),
}

impl Error {
    /// The stable code: of the store `exists`, `version_mismatch`, `value_mismatch`, `condition_failed`, `wrong_type`,
    /// `overflow`, `value_too_long`, `full`, `storage_failed`, `namespace_taken`, `watch_lagged`; or one of a request's.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Name(_) => "invalid_name",
            Self::Declare(error) => error.code(),
            Self::Request(error) => error.code(),
            Self::Payload(_) => "invalid_payload",
            Self::Watch(error) => error.code(),
        }
    }

    /// Whether it is only that a condition did not hold (`if_absent`, `if_version`, a swap, a transaction's).
    #[must_use]
    pub fn is_condition(&self) -> bool {
        matches!(self.code(), "exists" | "version_mismatch" | "value_mismatch" | "condition_failed")
    }
}

/// A namespace whose values are `T`s, for users on any node: a handle to ask its owner with, wherever that is.
///
/// Every write carries an id. When the node of the store, or the way to it, is lost before there was an answer, the write
/// is sent again under the same id, until the time limit; and is done once all the same, as long as the store remembers it
/// (10 minutes; through a restart when it is durable).
///
/// ```
/// use std::time::Duration;
/// use edri_store::Namespace;
///
/// # async fn f(bus: edri_router::Bus) -> Result<(), edri_store::Error> {
/// let sessions = Namespace::<String>::new(&bus, "sessions");
/// let version = sessions.set("s1", &"anna".to_owned()).expires_in(Duration::from_secs(3600)).if_absent().await?;
/// assert_eq!(sessions.get("s1").await?.as_deref(), Some("anna"));
/// sessions.set("s1", &"otto".to_owned()).if_version(version).await?;
/// # Ok(()) }
/// ```
pub struct Namespace<T> {
    bus: Bus,
    name: Arc<str>,
    time_limit: Duration,
    /// Its events, once they are declared, in the order of the verbs.
    events: Arc<OnceCell<Box<[DescriptorRef]>>>,
    value: PhantomData<fn() -> T>,
}

impl<T> Clone for Namespace<T> {
    fn clone(&self) -> Self {
        Self {
            bus: self.bus.clone(),
            name: Arc::clone(&self.name),
            time_limit: self.time_limit,
            events: Arc::clone(&self.events),
            value: PhantomData,
        }
    }
}

impl<T> std::fmt::Debug for Namespace<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Namespace").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl<T> Namespace<T> {
    /// The namespace of this name, asked through `bus`. A name that is none is told by the first request.
    #[must_use]
    pub fn new(bus: &Bus, name: &str) -> Self {
        Self {
            bus: bus.clone(),
            name: name.into(),
            time_limit: TIME_LIMIT_DEFAULT,
            events: Arc::default(),
            value: PhantomData,
        }
    }

    /// How long a request may take, with all that are sent again. 30 s by default; inside a handler never longer than the
    /// event in hand has.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// The namespace's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The event of a verb, once all are declared.
    async fn event(&self, verb: Verb) -> Result<&DescriptorRef, Error> {
        let events = match self.events.get() {
            Some(events) => events,
            None => self.declare().await?,
        };
        Ok(&events[verb as usize])
    }

    /// Rare; boxed, it does not weigh on every request's future.
    fn declare(&self) -> Sending<'_, &[DescriptorRef]> {
        Box::pin(async { Ok(&**self.events.get_or_try_init(|| self.declare_all()).await?) })
    }

    async fn declare_all(&self) -> Result<Box<[DescriptorRef]>, Error> {
        for event in descriptors(self.name())? {
            self.bus.declare(event).await?;
        }
        // As the node has them, which may have had them before.
        let find = |verb: Verb| self.bus.untyped().event(&verb.event(self.name()), verb.kind());
        Ok(VERBS.into_iter().map(find).collect::<Result<_, _>>()?)
    }

    /// Asks the namespace's owner. On its own node neither question nor answer is encoded.
    async fn ask<A: Data>(&self, verb: Verb, question: impl Fn() -> Question) -> Result<A, Error> {
        let events = match self.events.get() {
            Some(events) => events,
            None => self.declare().await?,
        };
        let (event, began) = (&events[verb as usize], Instant::now());
        let options = Options::new().time_limit(self.time_limit);
        match self.bus.described(event).ask_with(question(), &options).await {
            Err(error) if is_lost(&error, false) => {
                Ok(Box::pin(self.ask_again(event, question(), began, error)).await?.read()?)
            }
            answered => Ok(answered?.read()?),
        }
    }

    /// As [`Namespace::ask`], with a question that is encoded because it borrows, and an answer that cannot travel as a value.
    async fn ask_encoded<A: DeserializeOwned>(&self, verb: Verb, question: &impl Serialize) -> Result<A, Error> {
        let question = Question::packed(question)?;
        let (event, began) = (self.event(verb).await?, Instant::now());
        let options = Options::new().time_limit(self.time_limit);
        let answer = match self.bus.described(event).ask_with(question.clone(), &options).await {
            Err(error) if is_lost(&error, false) => Box::pin(self.ask_again(event, question, began, error)).await?,
            answered => answered?,
        };
        Ok(answer.into_body(Encoding::MessagePack)?.decode()?)
    }

    /// Sends a request again that was lost, until it is answered or its time is over. Whether it was done is not known; under the
    /// same id it is not done twice.
    async fn ask_again(
        &self,
        event: &DescriptorRef,
        question: Question,
        began: Instant,
        mut lost: RequestError,
    ) -> Result<Value, RequestError> {
        let mut pause = PAUSE_FIRST;
        while began.elapsed() + pause < self.time_limit {
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(PAUSE_LONGEST);
            let options = Options::new().time_limit(self.time_limit.saturating_sub(began.elapsed()));
            lost = match self.bus.described(event).ask_with(question.clone(), &options).await {
                Err(error) if is_lost(&error, true) => error,
                answered => return answered,
            };
        }
        Err(lost)
    }

    /// Takes a key out; whether it was there.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn delete(&self, key: &str) -> Result<bool, Error> {
        self.delete_at(key, None).await
    }

    /// Takes a key out if its item has this version.
    ///
    /// # Errors
    ///
    /// [`Error`]; `version_mismatch` when it has not.
    pub async fn delete_version(&self, key: &str, version: u64) -> Result<(), Error> {
        self.delete_at(key, Some(version)).await.map(|_| ())
    }

    async fn delete_at(&self, key: &str, if_version: Option<u64>) -> Result<bool, Error> {
        let delete = Question::Delete(Box::new(Delete { key: key.to_owned(), if_version, request: request_id() }));
        self.ask::<Deleted>(Verb::Delete, || delete.clone()).await.map(|deleted| deleted.existed)
    }

    /// Adds to the integer that a key has, which is 0 where it has none; the sum.
    ///
    /// # Errors
    ///
    /// [`Error`]; `wrong_type` when it is no integer, `overflow` when the sum has no place in 64 bits.
    pub async fn increment(&self, key: &str, by: i64) -> Result<i64, Error> {
        let increment = Increment { key: key.to_owned(), by, expires_in_ms: None, request: request_id() };
        let increment = Question::Increment(Box::new(increment));
        self.ask::<Incremented>(Verb::Increment, || increment.clone()).await.map(|incremented| incremented.value)
    }

    /// Adds an element to the list that a key has, which is empty where it has none; how many elements it has then. The
    /// whole list is written, so this is for short ones.
    ///
    /// # Errors
    ///
    /// [`Error`]; `wrong_type` when it is no list, `value_too_long` when it would be too long for a value.
    pub async fn append<E: Serialize>(&self, key: &str, element: &E) -> Result<u64, Error> {
        let append = Append { key: key.to_owned(), value: element, expires_in_ms: None, request: request_id() };
        self.ask_encoded::<Appended>(Verb::Append, &append).await.map(|appended| appended.length)
    }

    /// How many keys begin with `prefix`. Looks at all of them.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn count(&self, prefix: &str) -> Result<u64, Error> {
        self.ask_encoded(Verb::Count, &Count { prefix: prefix.to_owned() }).await
    }
}

impl<T: DeserializeOwned> Namespace<T> {
    /// The value of a key, if it is there.
    ///
    /// # Errors
    ///
    /// [`Error`]; `invalid_payload` when what is kept is no `T`.
    pub async fn get(&self, key: &str) -> Result<Option<T>, Error> {
        match self.find(key).await?.0 {
            Some(item) => Ok(Some(Encoding::MessagePack.decode(&item.value)?)),
            None => Ok(None),
        }
    }

    fn find(&self, key: &str) -> impl Future<Output = Result<Found, Error>> {
        self.ask(Verb::Get, move || Question::Get(Get { key: key.to_owned() }))
    }

    /// As [`Namespace::get`], with the item's version and time.
    ///
    /// # Errors
    ///
    /// As [`Namespace::get`].
    pub async fn get_item(&self, key: &str) -> Result<Option<Item<T>>, Error> {
        let Some(item) = self.find(key).await?.0 else { return Ok(None) };
        let FoundItem { key, value, version, expires_in_ms } = item;
        let value = Encoding::MessagePack.decode(&value)?;
        Ok(Some(Item { key: (*key).to_owned(), value, version, expires_in_ms }))
    }

    /// The items of several keys, at most 1,024, in their order.
    ///
    /// # Errors
    ///
    /// As [`Namespace::get`].
    pub async fn get_many<K: AsRef<str>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Item<T>>>, Error> {
        let keys = keys.into_iter().map(|key| key.as_ref().to_owned()).collect();
        self.ask_encoded(Verb::GetMany, &GetMany { keys }).await
    }

    /// A page of the items whose keys begin with `prefix`, after the key `after`: at most `limit`, of 1 to 1,024, in the
    /// order of their keys. Where there are more, [`Page::next`] is the `after` of the next page. Each page is as things are
    /// when it is asked for.
    ///
    /// # Errors
    ///
    /// As [`Namespace::get`].
    pub async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page<T>, Error> {
        let list = List { prefix: prefix.to_owned(), after: after.map(ToOwned::to_owned), limit: Some(limit as u64) };
        self.ask_encoded(Verb::List, &list).await
    }

    /// The items whose keys begin with `prefix`, and then every change of them.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn watch(&self, prefix: &str) -> Result<Watching<T>, Error> {
        let event = self.event(Verb::Watch).await?;
        let body = Body::encode(Encoding::MessagePack, &Watch { prefix: prefix.to_owned() })?;
        let tunnel = self.bus.untyped().open(event.name(), body).await.map_err(Error::Request)?;
        Ok(Watching { tunnel, value: PhantomData })
    }
}

impl<T: Serialize + Sync> Namespace<T> {
    /// Gives a key a value; `.await` does it, and gives the version of the change.
    pub fn set<'a>(&'a self, key: &str, value: &'a T) -> SetRequest<'a, T> {
        let set = Set {
            key: key.to_owned(),
            value,
            expires_in_ms: None,
            if_absent: false,
            if_version: None,
            request: request_id(),
        };
        SetRequest { namespace: self, set }
    }

    /// Gives a key a value if it has the one expected: `None` that it is not there. The version of the change. Values are
    /// compared by their MessagePack encoding.
    ///
    /// # Errors
    ///
    /// [`Error`]; `value_mismatch` or `exists` when it has another.
    pub async fn swap(&self, key: &str, expected: Option<&T>, value: &T) -> Result<u64, Error> {
        let swap = Swap { key: key.to_owned(), expected, value, expires_in_ms: None, request: request_id() };
        self.ask_encoded::<Written>(Verb::Swap, &swap).await.map(|written| written.version)
    }

    /// Several operations at once; `.await` does all of them, or none.
    ///
    /// ```
    /// # async fn f(accounts: edri_store::Namespace<i64>) -> Result<(), edri_store::Error> {
    /// let from = accounts.get_item("anna").await?.map(|item| item.version).unwrap_or(0);
    /// accounts.transaction().if_version("anna", from).increment("anna", -5).increment("otto", 5).await?;
    /// # Ok(()) }
    /// ```
    pub fn transaction(&self) -> Transaction<'_, T> {
        let transact = Transact { conditions: Vec::new(), operations: Vec::new(), request: request_id() };
        Transaction { namespace: self, transact }
    }
}

/// Whether the store, or the way to it, is lost; after that it may not be back yet.
fn is_lost(error: &RequestError, before: bool) -> bool {
    match error {
        RequestError::PeerLost(_) | RequestError::WorkerLost(_) => true,
        RequestError::NoHandler(_) => before,
        _ => false,
    }
}

/// An id that nobody else gives a request. Those of one process follow one another, so that in a store's file they lie side by
/// side: of what is written for many requests at once they are a few pages, and not one for each.
fn request_id() -> Option<String> {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| fastrand::u64(..));
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    Some(format!("{:016x}{:016x}", *PROCESS, NUMBER.fetch_add(1, Ordering::Relaxed)))
}

/// A value on its way to a key; `.await` sends it.
#[must_use = "nothing is set until it is awaited"]
#[derive(Debug)]
pub struct SetRequest<'a, T> {
    namespace: &'a Namespace<T>,
    set: Set<&'a T>,
}

impl<T> SetRequest<'_, T> {
    /// The item expires after this time, from a millisecond on.
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.set.expires_in_ms = Some(milliseconds(time));
        self
    }

    /// Only when the key is not there; otherwise the error `exists`.
    pub fn if_absent(mut self) -> Self {
        self.set.if_absent = true;
        self
    }

    /// Only when the key's item has this version; otherwise the error `version_mismatch`.
    pub fn if_version(mut self, version: u64) -> Self {
        self.set.if_version = Some(version);
        self
    }
}

type Sending<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

impl<'a, T: Serialize + Sync + 'a> IntoFuture for SetRequest<'a, T> {
    type Output = Result<u64, Error>;
    type IntoFuture = Sending<'a, u64>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Set { key, value, expires_in_ms, if_absent, if_version, request } = self.set;
            let value = Raw::of(value)?;
            let set = Set { key, value, expires_in_ms, if_absent, if_version, request };
            let set = Question::Set(Box::new(set));
            let written: Written = self.namespace.ask(Verb::Set, || set.clone()).await?;
            Ok(written.version)
        })
    }
}

/// Several operations at once; `.await` sends them. At most 256 conditions and 256 operations.
#[must_use = "nothing is done until it is awaited"]
#[derive(Debug)]
pub struct Transaction<'a, T> {
    namespace: &'a Namespace<T>,
    transact: Transact<&'a T>,
}

impl<'a, T> Transaction<'a, T> {
    /// Only when the key's item has this version; otherwise the error `condition_failed`.
    pub fn if_version(mut self, key: &str, version: u64) -> Self {
        self.transact.conditions.push(Condition { key: key.to_owned(), version: Some(version) });
        self
    }

    /// Only when the key is not there; otherwise the error `condition_failed`.
    pub fn if_absent(mut self, key: &str) -> Self {
        self.transact.conditions.push(Condition { key: key.to_owned(), version: None });
        self
    }

    /// Gives a key a value.
    pub fn set(self, key: &str, value: &'a T) -> Self {
        self.set_for(key, value, None)
    }

    /// Gives a key a value that expires after this time.
    pub fn set_expiring(self, key: &str, value: &'a T, time: Duration) -> Self {
        self.set_for(key, value, Some(milliseconds(time)))
    }

    fn set_for(mut self, key: &str, value: &'a T, expires_in_ms: Option<u64>) -> Self {
        let key = key.to_owned();
        let set = Set { key, value, expires_in_ms, if_absent: false, if_version: None, request: None };
        self.transact.operations.push(Operation::Set(set));
        self
    }

    /// Takes a key out.
    pub fn delete(mut self, key: &str) -> Self {
        let delete = Delete { key: key.to_owned(), if_version: None, request: None };
        self.transact.operations.push(Operation::Delete(delete));
        self
    }

    /// Adds to an integer.
    pub fn increment(mut self, key: &str, by: i64) -> Self {
        let increment = Increment { key: key.to_owned(), by, expires_in_ms: None, request: None };
        self.transact.operations.push(Operation::Increment(increment));
        self
    }
}

impl<'a, T: Serialize + Sync + 'a> IntoFuture for Transaction<'a, T> {
    type Output = Result<Vec<Done>, Error>;
    type IntoFuture = Sending<'a, Vec<Done>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let done: Transacted = self.namespace.ask_encoded(Verb::Transact, &self.transact).await?;
            Ok(done.results)
        })
    }
}

/// A watch: first the items that are there ([`What::Is`](crate::event::What::Is)), then one
/// [`What::Ready`](crate::event::What::Ready), then every change in the order of their versions and without a gap. A change
/// of an item that was told already may come before `Ready`.
///
/// Whoever reads too slowly is told so: once 4,096 changes or 16 MiB wait, the watch ends with `watch_lagged`. Open it again
/// then; it begins with what is there. It also ends, with `stopping`, when the store does.
pub struct Watching<T> {
    tunnel: Opened<Body, Body, Body>,
    value: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Watching<T> {
    /// What is next; `None` is never told, because a watch that ends says why. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Error`]: why the watch has ended; `invalid_payload` when a value is no `T`.
    pub async fn next(&mut self) -> Result<Change<T>, Error> {
        match self.tunnel.recv().await? {
            Some(change) => Ok(change.decode()?),
            None => Err(TunnelError::Finished.into()),
        }
    }
}

impl<T> std::fmt::Debug for Watching<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watching").finish_non_exhaustive()
    }
}
