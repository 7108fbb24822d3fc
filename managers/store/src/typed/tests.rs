use edri_events::Failure;

use super::*;
use crate::ask::Fields;
use crate::event::Verb;
use crate::model::Command;
use crate::worker::command;

fn set(key: &str, value: &impl Serialize) -> Set<Raw> {
    let value = Raw::of(value).expect("encodes");
    Set { key: key.to_owned(), value, expires_in_ms: None, if_absent: false, if_version: None, request: None }
}

fn told(command: Result<Command, Failure>) -> Result<Command, (String, String)> {
    command.map_err(|failure| (failure.code().to_owned(), failure.text().to_owned()))
}

/// Asks both ways: as a value, and as the bytes that a boundary makes of it.
fn check(verb: Verb, question: &Question, typed: Result<Command, Failure>) {
    let bytes = Data::encode(question, Encoding::MessagePack).expect("encodes");
    let encoded = Fields::read(&bytes).and_then(|fields| command(verb, &fields));
    assert_eq!(told(typed), told(encoded), "{question:?}");
}

#[test]
fn a_question_is_held_to_the_same_as_a_value_and_as_bytes() {
    let deep = |depth| (0..depth).fold(serde_json::Value::Null, |inner, _| serde_json::json!([inner]));
    let sets = [
        set("k", &7),
        set("", &7),
        set(&"k".repeat(512), &7),
        set(&"k".repeat(513), &7),
        set("k", &"x".repeat(4 << 20)),
        set("k", &"x".repeat((4 << 20) - 5)),
        set("k", &deep(64)),
        set("k", &deep(65)),
        Set { expires_in_ms: Some(0), ..set("k", &7) },
        Set { expires_in_ms: Some(1), ..set("k", &7) },
        Set { expires_in_ms: Some(u64::MAX), ..set("k", &7) },
        Set { if_absent: true, ..set("k", &7) },
        Set { if_version: Some(u64::MAX), ..set("k", &7) },
        Set { if_absent: true, if_version: Some(3), ..set("k", &7) },
    ];
    for set in sets {
        check(Verb::Set, &Question::Set(Box::new(set.clone())), ask::set(&set));
    }
    for (key, if_version) in [("k", None), ("k", Some(5)), ("", None)] {
        let delete = Delete { key: key.to_owned(), if_version, request: None };
        check(Verb::Delete, &Question::Delete(Box::new(delete.clone())), ask::delete(&delete));
    }
    for (key, by, expires_in_ms) in [("k", i64::MIN, None), ("k", 1, Some(5)), ("k", 1, Some(0)), ("", 1, None)] {
        let increment = Increment { key: key.to_owned(), by, expires_in_ms, request: None };
        check(Verb::Increment, &Question::Increment(Box::new(increment.clone())), ask::increment(&increment));
    }
    for id in ["r", "", &"r".repeat(64), &"r".repeat(65)] {
        let set = Set { request: Some(id.to_owned()), ..set("k", &7) };
        let bytes = Data::encode(&Question::Set(Box::new(set)), Encoding::MessagePack).expect("encodes");
        let encoded = Fields::read(&bytes).and_then(|fields| fields.request().map(|_| ()));
        let told = |result: Result<(), Failure>| result.map_err(|failure| failure.text().to_owned());
        assert_eq!(told(ask::check_request(Some(id))), told(encoded), "{id}");
    }
}

#[test]
fn a_boundary_writes_what_others_write() {
    let value = serde_json::json!({"list": [1, null, {"x": 1.5}], "text": "ä"});
    let raw = Raw::of(&value).expect("encodes");
    let plain = |expires_in_ms, if_absent, if_version, request: Option<&str>| {
        let (key, request) = ("k".to_owned(), request.map(str::to_owned));
        let typed = Set { key, value: raw.clone(), expires_in_ms, if_absent, if_version, request };
        let Set { key, value: _, expires_in_ms, if_absent, if_version, request } = typed.clone();
        (
            Question::Set(Box::new(typed)),
            Set { key, value: value.clone(), expires_in_ms, if_absent, if_version, request },
        )
    };
    for (question, public) in [plain(None, false, None, None), plain(Some(300), true, Some(1), Some("r"))] {
        for encoding in [Encoding::MessagePack, Encoding::Json] {
            assert_eq!(Data::encode(&question, encoding).expect("encodes"), encoding.encode(&public).expect("encodes"));
        }
    }
    for expires_in_ms in [None, Some(70_000)] {
        let item = FoundItem { key: "k".into(), value: raw.0.clone(), version: 300, expires_in_ms };
        let found = Found(Some(item));
        let public = Item { key: "k".to_owned(), value: value.clone(), version: 300, expires_in_ms };
        for encoding in [Encoding::MessagePack, Encoding::Json] {
            let bytes = Data::encode(&found, encoding).expect("encodes");
            assert_eq!(bytes, encoding.encode(&Some(&public)).expect("encodes"));
            assert_eq!(<Found as Data>::decode(encoding, &bytes).expect("decodes"), found);
        }
    }
    for encoding in [Encoding::MessagePack, Encoding::Json] {
        let bytes = Data::encode(&Found(None), encoding).expect("encodes");
        assert_eq!(bytes, encoding.encode(&()).expect("encodes"));
        assert_eq!(<Found as Data>::decode(encoding, &bytes).expect("decodes"), Found(None));
        assert!(<Found as Data>::decode(encoding, &encoding.encode(&"x").expect("encodes")).is_err());
    }
}
