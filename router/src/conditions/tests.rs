use std::cmp::Ordering;
use std::sync::Arc;

use edri_events::{Address, Body, Descriptor, Head, Incarnation, Kind, NodeName};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::limits::{CONDITION_BYTES_MAX, CONDITION_DEPTH_MAX, CONDITION_VALUES_MAX};

fn envelope(body: Body) -> Envelope {
    let descriptor = Descriptor::declare("test.told", Kind::Notification).expect("a name").build();
    let node = NodeName::new("test").expect("a name");
    let head = Head::new(descriptor, Arc::new(Address { node, incarnation: Incarnation::random(), manager: None }));
    Envelope::untyped(head, body).expect("without a key")
}

fn conditions(form: &Json) -> Conditions {
    Conditions::try_from(form.clone()).unwrap_or_else(|error| panic!("{form}: {error}"))
}

fn holds(conditions: &Conditions, encoding: Encoding, payload: &Json) -> bool {
    conditions.hold(&envelope(Body::encode(encoding, payload).expect("encodes"))).expect("well-formed")
}

// ---- the naive model ---------------------------------------------------------------------------------------------------

/// Sign and decimal digits with so many behind the point that no float has more.
fn decimal(number: &serde_json::Number) -> (bool, String) {
    let text = match (number.as_u64(), number.as_i64(), number.as_f64()) {
        (Some(integer), ..) => format!("{integer}.{:01074}", 0),
        (_, Some(integer), _) => format!("{integer}.{:01074}", 0),
        (.., Some(float)) => format!("{float:.1074}"),
        _ => unreachable!("a number of JSON"),
    };
    let negative = text.starts_with('-') && text.contains(|digit| ('1'..='9').contains(&digit));
    (negative, format!("{:0>1500}", text.trim_start_matches('-')))
}

fn naive_order(found: &Json, value: &Json) -> Option<Ordering> {
    match (found, value) {
        (Json::Number(found), Json::Number(value)) => Some(match (decimal(found), decimal(value)) {
            ((false, a), (false, b)) => a.cmp(&b),
            ((true, a), (true, b)) => b.cmp(&a),
            ((true, _), (false, _)) => Ordering::Less,
            ((false, _), (true, _)) => Ordering::Greater,
        }),
        (Json::String(found), Json::String(value)) => Some(found.chars().cmp(value.chars())),
        _ => None,
    }
}

fn naive_eq(found: &Json, value: &Json) -> bool {
    match found {
        Json::Array(_) | Json::Object(_) => false,
        Json::Number(_) | Json::String(_) => naive_order(found, value) == Some(Ordering::Equal),
        found => found == value,
    }
}

fn naive(form: &Json, payload: &Json) -> bool {
    form.as_object().expect("a map").iter().all(|(path, tests)| {
        let found = path.split('.').try_fold(payload, |value, name| value.as_object()?.get(name));
        let found = found.unwrap_or(&Json::Null);
        tests.as_object().expect("a map").iter().all(|(operator, value)| match operator.as_str() {
            "eq" => naive_eq(found, value),
            "ne" => !naive_eq(found, value),
            "in" => value.as_array().expect("a list").iter().any(|value| naive_eq(found, value)),
            "gt" => naive_order(found, value).is_some_and(Ordering::is_gt),
            "gte" => naive_order(found, value).is_some_and(Ordering::is_ge),
            "lt" => naive_order(found, value).is_some_and(Ordering::is_lt),
            "lte" => naive_order(found, value).is_some_and(Ordering::is_le),
            "prefix" => found.as_str().is_some_and(|text| text.starts_with(value.as_str().expect("a text"))),
            other => unreachable!("{other}"),
        })
    })
}

// ---- what the properties are tried with --------------------------------------------------------------------------------

const NAMES: [&str; 4] = ["a", "b", "c", "é"];

/// Few enough to meet, and close to where integers and floats part.
fn number() -> impl Strategy<Value = Json> {
    let near = prop_oneof![
        Just(0_i128),
        Just(1 << 53),
        Just(-(1 << 53)),
        Just(i128::from(i64::MAX)),
        Just(i128::from(i64::MIN)),
        Just(i128::from(u64::MAX))
    ];
    let integer = (near, -2_i128..=2).prop_map(|(near, by)| {
        let number = (near + by).clamp(i64::MIN.into(), u64::MAX.into());
        u64::try_from(number).map_or_else(|_| json!(number as i64), |number| json!(number))
    });
    let float = integer.clone().prop_flat_map(|integer| {
        let float = integer.as_f64().expect("a number");
        prop_oneof![
            Just(float),
            Just(float.next_up()),
            Just(float.next_down()),
            Just(float + 0.5),
            Just(float * 1e280),
            Just(float * 1e-300)
        ]
    });
    prop_oneof![integer, float.prop_map(|float| json!(float)), (-3_i64..3).prop_map(|small| json!(small))]
}

fn text() -> impl Strategy<Value = String> {
    let letter = prop_oneof![Just('a'), Just('b'), Just('é'), Just('\u{ffff}'), Just('\u{10000}')];
    prop::collection::vec(letter, 0..4).prop_map(|letters| letters.into_iter().collect())
}

fn scalar() -> impl Strategy<Value = Json> {
    prop_oneof![1 => Just(Json::Null), 1 => any::<bool>().prop_map(Json::from), 3 => number(), 3 => text().prop_map(Json::from)]
}

fn payload() -> impl Strategy<Value = Json> {
    let name = || prop::sample::select(&NAMES[..]);
    scalar().prop_recursive(4, 24, 4, move |inner| {
        let map = prop::collection::btree_map(name(), inner.clone(), 0..4);
        prop_oneof![4 => map.prop_map(|map| json!(map)), 1 => prop::collection::vec(inner, 0..3).prop_map(Json::from)]
    })
}

fn test() -> impl Strategy<Value = (&'static str, Json)> {
    let ordered = || prop_oneof![number(), text().prop_map(Json::from)];
    prop_oneof![
        scalar().prop_map(|value| ("eq", value)),
        scalar().prop_map(|value| ("ne", value)),
        prop::collection::vec(scalar(), 0..5).prop_map(|values| ("in", Json::from(values))),
        (prop::sample::select(vec!["gt", "gte", "lt", "lte"]), ordered()),
        text().prop_map(|value| ("prefix", Json::from(value))),
    ]
}

fn form() -> impl Strategy<Value = Json> {
    let path = prop::collection::vec(prop::sample::select(&NAMES[..]), 1..4).prop_map(|names| names.join("."));
    let tests = prop::collection::vec(test(), 1..3).prop_map(|tests| {
        Json::Object(tests.into_iter().map(|(operator, value)| (operator.to_owned(), value)).collect())
    });
    prop::collection::btree_map(path, tests, 0..4).prop_map(|map| json!(map))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn conditions_hold_when_a_naive_evaluator_says_so_in_either_encoding(form in form(), payload in payload()) {
        let (conditions, expect) = (conditions(&form), naive(&form, &payload));
        prop_assert_eq!(holds(&conditions, Encoding::Json, &payload), expect, "JSON");
        prop_assert_eq!(holds(&conditions, Encoding::MessagePack, &payload), expect, "MessagePack");
    }

    #[test]
    fn one_condition_on_one_field_holds_when_a_naive_evaluator_says_so(test in test(), value in scalar()) {
        let form = json!({"a": {test.0: test.1}});
        let (conditions, payload) = (conditions(&form), json!({"b": 1, "a": value}));
        let expect = naive(&form, &payload);
        prop_assert_eq!(holds(&conditions, Encoding::Json, &payload), expect, "JSON");
        prop_assert_eq!(holds(&conditions, Encoding::MessagePack, &payload), expect, "MessagePack");
    }

    #[test]
    fn numbers_stand_to_each_other_as_a_naive_evaluator_says(found in number(), value in number()) {
        let payload = json!({"a": found});
        for operator in ["eq", "ne", "gt", "gte", "lt", "lte"] {
            let form = json!({"a": {operator: value}});
            let (conditions, expect) = (conditions(&form), naive(&form, &payload));
            for encoding in [Encoding::Json, Encoding::MessagePack] {
                prop_assert_eq!(holds(&conditions, encoding, &payload), expect, "{} {:?}", operator, encoding);
            }
        }
    }

    #[test]
    fn conditions_read_back_what_they_write_in_either_encoding(form in form()) {
        let conditions = conditions(&form);
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let written = encoding.encode(&conditions).expect("encodes");
            prop_assert_eq!(encoding.decode::<Conditions>(&written).expect("decodes"), conditions.clone());
        }
        prop_assert_eq!(conditions.to_string().parse::<Conditions>().expect("parses"), conditions);
    }

    #[test]
    fn no_bytes_make_reading_a_payload_panic(form in form(), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let _ = conditions(&form).hold(&envelope(Body::new(encoding, bytes.clone())));
        }
    }
}

#[test]
fn a_field_that_is_not_there_is_as_one_that_is_null() {
    for payload in [json!({}), json!({"a": null}), json!(5), json!(null), json!([1]), json!({"a": {"b": 1}, "c": 2})] {
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let check = |form: Json, expect| {
                assert_eq!(holds(&conditions(&form), encoding, &payload), expect, "{form} {payload}");
            };
            check(json!({"x": {"eq": null}}), true);
            check(json!({"x": {"in": [1, null]}}), true);
            check(json!({"x": {"ne": 1}}), true);
            check(json!({"x": {"ne": null}}), false);
            check(json!({"x": {"eq": 0}}), false);
            check(json!({"x": {"in": []}}), false);
            check(json!({"x.y": {"lt": 1}}), false);
            check(json!({"a.x": {"prefix": ""}}), false);
            check(json!({"c.d": {"eq": null}}), true);
            check(json!({}), true);
        }
    }
}

#[test]
fn of_a_field_that_a_payload_has_twice_the_last_counts_with_all_that_is_in_it() {
    let check = |form: Json, text: &'static str, expect| {
        let body = Body::new(Encoding::Json, text);
        assert_eq!(conditions(&form).hold(&envelope(body)).expect("well-formed"), expect, "{form} {text}");
    };
    check(json!({"a": {"eq": 1}}), r#"{"a": 1, "a": 2}"#, false);
    check(json!({"a": {"eq": 2}}), r#"{"a": 1, "a": 2}"#, true);
    check(json!({"a.b": {"eq": 1}}), r#"{"a": {"b": 1}, "a": {"c": 1}}"#, false);
    check(json!({"a.b": {"eq": null}, "a": {"eq": 3}}), r#"{"a": {"b": 1}, "a": 3}"#, true);
}

#[test]
fn what_only_messagepack_has_is_equal_to_nothing_and_in_nobodys_way() {
    // {7: 1, true: 2, "x": bin [1], "e": ext, "f": 0.1 of 32 bits, "n": NaN}
    let bytes =
        b"\x86\x07\x01\xc3\x02\xa1x\xc4\x01\x01\xa1e\xd4\x05\x00\xa1f\xca\x3d\xcc\xcc\xcd\xa1n\xcb\x7f\xf8\0\0\0\0\0\0";
    let check = |form: Json, expect| {
        let body = Body::new(Encoding::MessagePack, &bytes[..]);
        assert_eq!(conditions(&form).hold(&envelope(body)).expect("well-formed"), expect, "{form}");
    };
    check(json!({"7": {"eq": 1}}), false);
    check(json!({"x": {"ne": 1}, "e": {"ne": null}}), true);
    check(json!({"x": {"eq": null}}), false);
    check(json!({"f": {"eq": 0.1, "lte": 0.1}}), true);
    check(json!({"n": {"ne": 0}}), true);
    check(json!({"n": {"gte": 0}}), false);
    check(json!({"n": {"in": [0, null, "a", true]}}), false);
}

#[test]
fn a_payload_that_is_malformed_anywhere_is_an_error() {
    let conditions = conditions(&json!({"a": {"eq": 1}}));
    for (encoding, bytes) in [
        (Encoding::Json, &br#"{"a": 1"#[..]),
        (Encoding::Json, br#"{"a": 1} x"#),
        (Encoding::MessagePack, b"\x81\xa1a"),
        (Encoding::MessagePack, b"\x81\xa1a\x01\x01"),
        (Encoding::MessagePack, b"\x81\xa1a\xc1"),
        (Encoding::Json, b""),
    ] {
        assert!(conditions.hold(&envelope(Body::new(encoding, bytes))).is_err(), "{encoding:?} {bytes:?}");
    }
    let deep = "[".repeat(100_000);
    assert!(conditions.hold(&envelope(Body::new(Encoding::Json, deep))).is_err());
    assert!(conditions.hold(&envelope(Body::new(Encoding::MessagePack, vec![0x91; 100_000]))).is_err());
}

#[test]
fn what_is_wrong_in_conditions_is_named_by_field_with_what_to_do() {
    let check = |text: &str, expect: &[&str]| {
        let error = text.parse::<Conditions>().expect_err(text).to_string();
        for expect in expect {
            assert!(error.contains(expect), "{text}: {error:?} lacks {expect:?}");
        }
    };
    check(r#"{"a": {"ge": 5}}"#, &["field `a`", "`ge` is no operator", "gte"]);
    check(r#"{"a": 5}"#, &["field `a`", "a map of operators", r#"{"eq": "north"}"#]);
    check(r#"{"a": {}}"#, &["field `a`", "nothing is said"]);
    check(r#"{"a": {"prefix": 5}}"#, &["field `a`", "`prefix` compares with a text"]);
    check(r#"{"a": {"gt": true}}"#, &["field `a`", "`gt` compares with a number or a text"]);
    check(r#"{"a": {"gt": null}}"#, &["field `a`", "`gt` compares with a number or a text"]);
    check(r#"{"a": {"eq": [1]}}"#, &["field `a`", "`eq` with a text, a number, true, false or null"]);
    check(r#"{"a": {"in": 1}}"#, &["field `a`", "`in` with a list"]);
    check(r#"{"a": {"in": [{}]}}"#, &["field `a`", "`in` with a text"]);
    check(r#"{"a..b": {"eq": 1}}"#, &["`a..b` names no field"]);
    check(r#"{"": {"eq": 1}}"#, &["`` names no field"]);
    check(r#"{"a": {"eq": 1}, "a": {"eq": 2}}"#, &["field `a` is there twice"]);
    check(r#"{"a": {"eq": 1, "eq": 2}}"#, &["field `a`", "`eq` is there twice"]);
    check(r#"[1]"#, &["conditions: write them as"]);
    check("magnitude>5", &["expected value"]);
    let infinite = b"\x81\xa1a\x81\xa2eq\xcb\x7f\xf0\0\0\0\0\0\0";
    let error = Encoding::MessagePack.decode::<Conditions>(infinite).expect_err("infinite").to_string();
    assert!(error.contains("field `a`: `eq` compares with a finite number"), "{error}");
}

#[test]
fn conditions_have_limits_which_their_errors_name() {
    let check = |form: Json, expect: &str| {
        let error = Conditions::try_from(form).expect_err(expect).to_string();
        assert!(error.contains(expect) && error.len() < 300, "{error}");
    };
    let of_fields = |count| Json::Object((0..count).map(|n| (format!("f{n}"), json!({"eq": 1}))).collect());
    assert!(holds(&conditions(&of_fields(CONDITIONS_MAX)), Encoding::Json, &{
        Json::Object((0..CONDITIONS_MAX).map(|n| (format!("f{n}"), json!(1))).collect())
    }));
    check(of_fields(CONDITIONS_MAX + 1), "more than 64");
    let of_values = |count: usize| json!({"a": {"in": (0..count).collect::<Vec<_>>()}});
    assert!(Conditions::try_from(of_values(CONDITION_VALUES_MAX)).is_ok());
    check(of_values(CONDITION_VALUES_MAX + 1), "field `a`: more than 1024 values");
    let deep = |depth: usize| json!({vec!["a"; depth].join("."): {"eq": 1}});
    assert!(Conditions::try_from(deep(CONDITION_DEPTH_MAX)).is_ok());
    check(deep(CONDITION_DEPTH_MAX + 1), "deeper than 16 names");
    check(json!({"a": {"eq": "x".repeat(CONDITION_BYTES_MAX)}}), "longer than 65536 bytes");
    check(json!({"x".repeat(CONDITION_BYTES_MAX + 1): {"eq": 1}}), "longer than 65536 bytes");
    check(json!({"é.".repeat(1000): {"eq": 1}}), "names no field");
}
