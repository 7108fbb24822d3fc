//! A form that is posted twice, as by a double click, is taken once: the second is answered as the first was.
//!
//! A page gives each of its forms a number that nobody can guess. The same number with the same fields is the same form; with others it
//! is another one, as when somebody goes back and writes something else. A browser that posts a second time leaves the first
//! alone, so that one is gone on with though nobody waits for it. What was not taken may be tried again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode};
use bytes::Bytes;
use edri_events::EventName;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use ring::digest;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::Post;
use super::fields::{Entry, Given};
use crate::problem::Problem;
use crate::sessions;

/// The field of a form with its number.
pub(super) const FIELD: &str = "_once";
/// For how long an answer is kept.
const KEPT_TIME: Duration = Duration::from_secs(600);
/// The most forms that are remembered.
const FORMS_MAX: usize = 4_096;
/// The most bytes of their answers together.
const BYTES_MAX: usize = 16 << 20;
/// The longest answer that is kept.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What makes a form the same as another.
type Key = [u8; 32];

/// What a form was answered.
type Answer = Option<Result<Kept, Problem>>;

/// An answer that can be given again.
#[derive(Debug, Clone)]
struct Kept {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Kept {
    async fn of(response: Response<Body>) -> Result<Self, Problem> {
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", format!("the answer broke off: {error}"))
        })?;
        Ok(Self { status: head.status, headers: head.headers, body: body.to_bytes() })
    }

    fn weight(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64);
        self.body.len() + headers.sum::<usize>()
    }

    fn respond(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// The forms of the last minutes.
#[derive(Debug, Default)]
pub(crate) struct Once {
    // Held to look for a form, to add or to settle one.
    forms: Arc<Mutex<Forms<watch::Receiver<Answer>>>>,
}

impl Once {
    /// Takes a form that has not been taken, with `work`, and answers as it was answered otherwise. Dropping the future does not
    /// stop the work.
    pub(super) async fn take(
        &self,
        key: Key,
        runtime: &Handle,
        work: impl Future<Output = Result<Response<Body>, Problem>> + Send + 'static,
    ) -> Result<Response<Body>, Problem> {
        let (answer, mut answered) = watch::channel(None);
        let begun = self.forms.lock().begin(key, answered.clone(), Instant::now());
        match begun {
            Begun::First => {
                let taking = Taking { forms: Arc::clone(&self.forms), key, answer };
                runtime.spawn(async move {
                    let done = match work.await {
                        Ok(response) => Kept::of(response).await,
                        Err(problem) => Err(problem),
                    };
                    taking.done(done);
                });
            }
            Begun::Again(earlier) => answered = earlier,
            Begun::TooLong => {
                let detail = "this form was taken already, and what it was answered is not kept";
                return Err(Problem::new(StatusCode::CONFLICT, "conflict", detail));
            }
            Begun::Full => {
                let detail = format!("{FORMS_MAX} forms are under way, which is all that can be: try again");
                return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail));
            }
        }
        let lost = || Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", "what became of the form is not known");
        let answer = answered.wait_for(Option::is_some).await.map_err(|_| lost())?.clone();
        answer.ok_or_else(lost)?.map(Kept::respond)
    }
}

/// A form that is being taken.
struct Taking {
    forms: Arc<Mutex<Forms<watch::Receiver<Answer>>>>,
    key: Key,
    answer: watch::Sender<Answer>,
}

impl Taking {
    fn done(self, done: Result<Kept, Problem>) {
        let weight = done.as_ref().ok().map(Kept::weight);
        self.answer.send_replace(Some(done));
        self.forms.lock().done(&self.key, weight);
    }
}

impl Drop for Taking {
    // Also when taking it panics, or the runtime stops.
    fn drop(&mut self) {
        self.forms.lock().give_up(&self.key);
    }
}

/// Which forms were taken, and how they were answered. Pure: what time it is comes in.
#[derive(Debug)]
struct Forms<A> {
    known: HashMap<Key, Form<A>>,
    /// The same in the order in which they came.
    order: VecDeque<(Key, Instant)>,
    bytes: usize,
}

#[derive(Debug)]
enum Form<A> {
    UnderWay(A),
    Done(A, usize),
    /// It was taken, and its answer was too long.
    TooLong,
}

#[derive(Debug, PartialEq, Eq)]
enum Begun<A> {
    /// It is to be taken.
    First,
    /// It is, or was.
    Again(A),
    TooLong,
    /// There is no room.
    Full,
}

impl<A> Default for Forms<A> {
    fn default() -> Self {
        Self { known: HashMap::new(), order: VecDeque::new(), bytes: 0 }
    }
}

impl<A: Clone> Forms<A> {
    fn begin(&mut self, key: Key, answer: A, now: Instant) -> Begun<A> {
        self.forget(now);
        match self.known.get(&key) {
            Some(Form::UnderWay(answer) | Form::Done(answer, _)) => return Begun::Again(answer.clone()),
            Some(Form::TooLong) => return Begun::TooLong,
            None => {}
        }
        if self.known.len() >= FORMS_MAX && !self.make_room() {
            return Begun::Full;
        }
        self.known.insert(key, Form::UnderWay(answer));
        self.order.push_back((key, now));
        Begun::First
    }

    /// It was taken, with an answer of so many bytes; `None` when it was not taken.
    fn done(&mut self, key: &Key, weight: Option<usize>) {
        let Some(weight) = weight else { return self.give_up(key) };
        let Some(Form::UnderWay(answer)) = self.known.remove(key) else { return };
        let form = if weight > ANSWER_BYTES_MAX { Form::TooLong } else { Form::Done(answer, weight) };
        if matches!(form, Form::Done(..)) {
            self.bytes += weight;
        }
        self.known.insert(*key, form);
        while self.bytes > BYTES_MAX && self.make_room() {}
    }

    /// Nobody takes it any more.
    fn give_up(&mut self, key: &Key) {
        if matches!(self.known.get(key), Some(Form::UnderWay(_))) {
            self.known.remove(key);
            self.order.retain(|(known, _)| known != key);
        }
    }

    /// Forgets what is too old. What is under way is not.
    fn forget(&mut self, now: Instant) {
        while let Some((key, since)) = self.order.front().copied() {
            let is_old = now.saturating_duration_since(since) >= KEPT_TIME;
            if !is_old || matches!(self.known.get(&key), Some(Form::UnderWay(_))) {
                return;
            }
            self.order.pop_front();
            self.remove(&key);
        }
    }

    /// Forgets the oldest that was taken; whether there was one.
    fn make_room(&mut self) -> bool {
        let is_taken = |(key, _): &(Key, Instant)| !matches!(self.known.get(key), Some(Form::UnderWay(_)));
        let oldest = self.order.iter().position(is_taken).and_then(|index| self.order.remove(index));
        if let Some((key, _)) = &oldest {
            self.remove(key);
        }
        oldest.is_some()
    }

    fn remove(&mut self, key: &Key) {
        if let Some(Form::Done(_, weight)) = self.known.remove(key) {
            self.bytes -= weight;
        }
    }
}

impl Post {
    /// What makes this form the same as another: its number, who sends it, where to, and its fields.
    pub(super) fn key(&self, number: &str, entries: &[Entry]) -> Key {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut add = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
        };
        let who = self
            .sender
            .caller
            .session()
            .map(|session| &**session.name())
            .or(self.sender.caller.name())
            .unwrap_or_default();
        let event: &EventName = self.event.descriptor.name();
        let path = self.head.uri.path_and_query().map(|path| path.as_str()).unwrap_or_default();
        for text in [number, who, event.as_str(), path] {
            add(text.as_bytes());
        }
        for Entry { name, given } in entries.iter().filter(|entry| ![FIELD, sessions::FIELD].contains(&&*entry.name)) {
            add(name.as_bytes());
            match given {
                Given::Text(text) => add(text.as_bytes()),
                Given::File(file) => {
                    add(file.name.as_bytes());
                    add(&file.bytes);
                }
            }
        }
        let mut key = [0; 32];
        key.copy_from_slice(context.finish().as_ref());
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        key
    }

    #[test]
    fn a_form_is_taken_once_and_what_was_not_taken_again() {
        let (mut forms, now) = (Forms::default(), Instant::now());
        assert_eq!(forms.begin(key(1), 'a', now), Begun::First);
        assert_eq!(forms.begin(key(1), 'b', now), Begun::Again('a'), "while it is under way");
        assert_eq!(forms.begin(key(2), 'c', now), Begun::First);
        forms.done(&key(1), Some(10));
        forms.done(&key(2), None);
        assert_eq!(forms.begin(key(1), 'd', now), Begun::Again('a'), "afterwards");
        assert_eq!(forms.begin(key(2), 'e', now), Begun::First, "it was not taken");
        forms.give_up(&key(2));
        forms.give_up(&key(1));
        assert_eq!(forms.begin(key(2), 'f', now), Begun::First);
        assert_eq!(forms.begin(key(1), 'g', now), Begun::Again('a'));
        assert_eq!(forms.begin(key(1), 'h', now + KEPT_TIME), Begun::First, "it is forgotten in the end");
        forms.done(&key(1), Some(ANSWER_BYTES_MAX + 1));
        assert_eq!(forms.begin(key(1), 'i', now + KEPT_TIME), Begun::TooLong);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_under_way_is_not_forgotten() {
        let (mut forms, now) = (Forms::default(), Instant::now());
        assert_eq!(forms.begin(key(0), 0, now), Begun::First);
        for number in 1..3 * FORMS_MAX {
            assert_eq!(forms.begin(key(number), number, now), Begun::First);
            forms.done(&key(number), Some(ANSWER_BYTES_MAX));
            assert!(forms.bytes <= BYTES_MAX && forms.known.len() <= FORMS_MAX);
            assert_eq!(forms.begin(key(usize::MAX - number), 0, now), Begun::First);
            forms.done(&key(usize::MAX - number), None);
            assert_eq!(forms.order.len(), forms.known.len());
        }
        assert_eq!(forms.begin(key(0), 1, now + 2 * KEPT_TIME), Begun::Again(0));
        let (mut forms, now) = (Forms::default(), Instant::now());
        for number in 0..FORMS_MAX {
            assert_eq!(forms.begin(key(number), number, now), Begun::First);
        }
        assert_eq!(forms.begin(key(FORMS_MAX), 0, now), Begun::Full);
        for number in 0..FORMS_MAX {
            forms.done(&key(number), Some(1));
        }
        assert_eq!(forms.begin(key(FORMS_MAX), 0, now), Begun::First);
        assert_eq!((forms.known.len(), forms.bytes), (FORMS_MAX, FORMS_MAX - 1));
    }
}
