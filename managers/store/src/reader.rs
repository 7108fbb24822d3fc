//! Reading where it is asked, without the worker.

use edri_events::{Encoding, Envelope, Failure, Value};

use crate::ask::{Fields, write_found};
use crate::namespace::{Namespace, body};
use crate::typed::Question;

/// Answers who asks for the item of one key as the worker would. Whatever is not as it should be is the worker's to tell.
pub(crate) fn respond(namespace: &Namespace, request: &Envelope) -> Option<Result<Value, Failure>> {
    if namespace.check_owned().is_err() {
        return None;
    }
    Some(Ok(match request.typed::<Question>() {
        Some(Question::Get(get)) => Value::typed(namespace.find_at_once(&get.key)?),
        Some(_) => return None,
        None => find_encoded(namespace, request)?,
    }))
}

/// The answer to a question that is encoded, in the encoding that it has.
fn find_encoded(namespace: &Namespace, request: &Envelope) -> Option<Value> {
    let asked = request.body(Encoding::MessagePack).ok()?;
    let encoding = asked.encoding;
    let asked = asked.transcode(Encoding::MessagePack).ok()?;
    let found = namespace.find_at_once(Fields::read(&asked.bytes).ok()?.key().ok()?)?;
    Some(body(write_found(&found), encoding).ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Bounds;
    use crate::typed::Found;

    #[test]
    fn who_finds_others_at_it_for_long_and_what_is_no_key_is_left_to_the_worker() {
        let namespace = Namespace::new("things", Bounds::default());
        let read = |key: &'static str| {
            let namespace = &namespace;
            std::thread::scope(|scope| scope.spawn(move || namespace.find_at_once(key)).join().expect("no panic"))
        };
        assert_eq!(read("a"), Some(Found(None)));
        assert_eq!(read(""), None);
        let held = namespace.kept.lock();
        assert_eq!(read("a"), None);
        drop(held);
        assert_eq!(read("a"), Some(Found(None)));
    }
}
