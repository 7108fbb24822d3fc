//! The table against a model that has no structure at all: a list of subscriptions, searched from end to end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;

use edri_events::{Address, Body, Descriptor, Encoding, Head, Incarnation, Kind, NodeName, event};
use proptest::prelude::*;
use serde_json::json;

use super::*;

// ---- the world -----------------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
struct Group(u64);

impl Target for Group {
    fn id(&self) -> u64 {
        self.0
    }
}

const GROUPS: u64 = 4;
const KEYS: [&str; 2] = ["x", "y"];

/// Of two segments in one to three places.
static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let longer = |names: &[String]| -> Vec<String> {
        names.iter().flat_map(|name| ["a", "b"].map(|segment| format!("{name}.{segment}"))).collect()
    };
    let one = ["a", "b"].map(str::to_owned).to_vec();
    let two = longer(&one);
    let three = longer(&two);
    [one, two, three].concat()
});

/// One for each name, with no key and with each key, loud and quiet.
static ENVELOPES: LazyLock<Vec<Envelope>> = LazyLock::new(|| {
    let keys = [None, Some(KEYS[0]), Some(KEYS[1]), Some("unasked")];
    let about = |name: &str| keys.map(|key| [true, false].map(|loud| envelope(name, key, loud))).concat();
    NAMES.iter().flat_map(|name| about(name)).collect()
});

fn envelope(name: &str, key: Option<&str>, loud: bool) -> Envelope {
    let node = NodeName::new("test").expect("a name");
    let origin = Arc::new(Address { node, incarnation: Incarnation::random(), manager: None });
    let mut head = Head::new(declared(name, Kind::Notification, None), origin);
    if let Some(key) = key {
        head.set_key(key);
    }
    Envelope::untyped(head, Body::from(json!(loud))).expect("no key to be found in the body")
}

fn is_loud(envelope: &Envelope) -> bool {
    envelope.encoded(Encoding::Json).is_ok_and(|bytes| **bytes == *b"true")
}

fn declared(name: &str, kind: Kind, key: Option<&str>) -> DescriptorRef {
    let declaration = Descriptor::declare(name, kind).expect("a name");
    match key {
        Some(key) => declaration.key(key).build(),
        None => declaration.build(),
    }
}

#[event(notification, name = "a.a", key = region, crate = edri_events)]
struct Typed {
    region: String,
}

/// Claims the name of another type.
#[event(notification, name = "a.a", key = region, crate = edri_events)]
struct Rival {
    region: String,
}

#[event(request, name = "b.a", response = u8, crate = edri_events)]
struct Asked {}

fn subscription(group: u64, pattern: &str, handler: u32) -> Subscription<Group> {
    let pattern = Pattern::new(pattern).expect("a pattern");
    Subscription { target: Group(group), pattern, key: None, predicate: None, handler }
}

// ---- the model -----------------------------------------------------------------------------------------------------

/// What a table should know.
#[derive(Clone, Default)]
struct Model {
    declared: HashMap<EventName, DescriptorRef>,
    subscriptions: Vec<Subscription<Group>>,
}

impl Model {
    fn declare(&mut self, descriptor: DescriptorRef) -> Result<(), Incompatible> {
        if let Some(known) = self.declared.get(descriptor.name()) {
            descriptor.compatible(known)?;
            if known.rust_type().is_some() || descriptor.rust_type().is_none() {
                return Ok(());
            }
        }
        self.declared.insert(descriptor.name().clone(), descriptor);
        Ok(())
    }

    fn wanted(&self, name: &str) -> impl Iterator<Item = &Subscription<Group>> {
        self.subscriptions.iter().filter(move |subscription| subscription.pattern.matches(name))
    }

    /// The groups that get the event, each with its handler: the one it asked for by name rather than by pattern, for
    /// all keys rather than for one, earlier rather than later.
    fn reached(&self, envelope: &Envelope) -> BTreeMap<u64, (u32, bool)> {
        let key = envelope.key();
        let wants = |subscription: &&Subscription<Group>| {
            subscription.key.as_deref().is_none_or(|wanted| Some(wanted) == key.as_deref())
                && subscription.predicate.as_ref().is_none_or(|predicate| predicate(envelope))
        };
        let mut wanted: Vec<_> = self.wanted(envelope.name()).filter(wants).collect();
        wanted.sort_by_key(|subscription| (!subscription.pattern.is_exact(), subscription.key.is_some()));
        let mut reached = BTreeMap::new();
        for subscription in wanted {
            let handled = (subscription.handler, subscription.pattern.is_exact());
            reached.entry(subscription.target.id()).or_insert(handled);
        }
        reached
    }

    /// The names that a table keeps: those declared and those subscribed to by name.
    fn names(&self) -> BTreeSet<&str> {
        let by_name = self.subscriptions.iter().filter(|subscription| subscription.pattern.is_exact());
        self.declared.keys().map(EventName::as_str).chain(by_name.map(|s| s.pattern.as_str())).collect()
    }

    fn check_table(&self, table: &Table<Group>) -> Result<(), TestCaseError> {
        prop_assert_eq!(table.subscription_count(), self.subscriptions.len());
        prop_assert_eq!(table.name_count(), self.names().len());
        self.check_snapshot(&table.snapshot())
    }

    fn check_snapshot(&self, snapshot: &Snapshot<Group>) -> Result<(), TestCaseError> {
        let known: BTreeSet<_> = snapshot.names.iter().map(|(name, _)| name.as_str()).collect();
        prop_assert_eq!(known, self.names());
        let declared: HashMap<_, _> = snapshot.descriptors().map(|d| (d.name().clone(), d)).collect();
        prop_assert_eq!(declared.len(), self.declared.len());
        for (name, descriptor) in &self.declared {
            prop_assert!(declared.get(name).is_some_and(|known| known.same(descriptor)), "{:?}", descriptor);
        }
        for envelope in &*ENVELOPES {
            let name = envelope.name();
            let by_pattern;
            let entry = match snapshot.entry(&envelope.head().descriptor) {
                Some(entry) => &**entry,
                None => {
                    by_pattern = snapshot.undeclared_entry(name);
                    &by_pattern
                }
            };
            prop_assert_eq!(snapshot.entry_by_name(name).is_some(), self.names().contains(name.as_str()));
            prop_assert_eq!(entry.descriptor().is_some(), self.declared.contains_key(name));
            prop_assert_eq!(entry.is_unwanted(), self.wanted(name).next().is_none(), "{}", name);
            let mut reached = Vec::new();
            entry.for_each(envelope, |route| reached.push((route.target.id(), (route.handler, route.exact))));
            reached.sort_unstable();
            let expect: Vec<_> = self.reached(envelope).into_iter().collect();
            prop_assert_eq!(reached, expect, "{} with the key {:?}", name, envelope.key());
        }
        Ok(())
    }
}

// ---- the steps -----------------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Step {
    Declare(DescriptorRef),
    /// The handler is the number of the step.
    Subscribe {
        group: u64,
        pattern: Pattern,
        key: Option<&'static str>,
        loud_only: bool,
    },
    Withdraw {
        group: u64,
    },
    /// Remembers a snapshot.
    Keep,
}

fn names() -> impl Strategy<Value = String> {
    prop::sample::select(NAMES.clone())
}

fn patterns() -> impl Strategy<Value = String> {
    let segments = prop::collection::vec(prop::sample::select(vec!["a", "b", "*"]), 0..3);
    let last = prop::sample::select(vec!["a", "b", "*", ">"]);
    (segments, last).prop_map(|(mut segments, last)| {
        segments.push(last);
        segments.join(".")
    })
}

fn descriptors() -> impl Strategy<Value = DescriptorRef> {
    let kind = prop::sample::select(vec![Kind::Notification, Kind::Request, Kind::Tunnel]);
    let key = prop::option::of(Just("region"));
    let typed = [DescriptorRef::of::<Typed>(), DescriptorRef::of::<Rival>(), DescriptorRef::of::<Asked>()];
    prop_oneof![
        3 => (names(), kind, key).prop_map(|(name, kind, key)| declared(&name, kind, key)),
        1 => prop::sample::select(vec!["a.a", "b.a"]).prop_map(|name| match name {
            "a.a" => declared(name, Kind::Notification, Some("region")),
            _ => declared(name, Kind::Request, None),
        }),
        2 => prop::sample::select(typed.to_vec()),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let subscribe = (0..GROUPS, prop_oneof![names(), patterns()], prop::option::of(0..KEYS.len()), any::<bool>());
    prop_oneof![
        3 => descriptors().prop_map(Step::Declare),
        6 => subscribe.prop_map(|(group, pattern, key, loud_only)| Step::Subscribe {
            group,
            pattern: Pattern::new(&pattern).expect("a pattern"),
            key: key.map(|key| KEYS[key]),
            loud_only,
        }),
        2 => (0..GROUPS).prop_map(|group| Step::Withdraw { group }),
        1 => Just(Step::Keep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_routes_as_a_plain_list_of_subscriptions_would_and_old_snapshots_as_the_list_of_their_time(
        steps in prop::collection::vec(steps(), 1..60),
    ) {
        let mut table = Table::default();
        let mut model = Model::default();
        let mut kept = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Declare(descriptor) => {
                    let expect = model.declare(descriptor.clone());
                    prop_assert_eq!(table.check(&descriptor), expect.clone());
                    prop_assert_eq!(table.declare(descriptor).map(|_| ()), expect.clone());
                    if expect.is_err() {
                        model.check_table(&table)?;
                    }
                }
                Step::Subscribe { group, pattern, key, loud_only } => {
                    let subscription = Subscription {
                        key: key.map(Arc::from),
                        predicate: loud_only.then(|| Arc::new(is_loud) as Predicate),
                        ..subscription(group, pattern.as_str(), number as u32)
                    };
                    table.subscribe(subscription.clone());
                    model.subscriptions.push(subscription);
                }
                Step::Withdraw { group } => {
                    table.withdraw(group);
                    model.subscriptions.retain(|subscription| subscription.target.id() != group);
                }
                Step::Keep => {
                    model.check_table(&table)?;
                    kept.push((table.snapshot(), model.clone()));
                }
            }
        }
        model.check_table(&table)?;
        kept.push((table.snapshot(), model.clone()));
        for group in 0..GROUPS {
            table.withdraw(group);
        }
        model.subscriptions.clear();
        model.check_table(&table)?;
        prop_assert!(table.view.patterns.is_empty() && table.subscriptions.is_empty());
        for (snapshot, model) in kept {
            model.check_snapshot(&snapshot)?;
        }
    }
}

// ---- by example ----------------------------------------------------------------------------------------------------

/// Who gets an event of this name and key, with which handler, by name or not.
fn routes(table: &Table<Group>, name: &str, key: Option<&str>) -> Vec<(u64, u32, bool)> {
    let mut routes = Vec::new();
    let snapshot = table.snapshot();
    let entry = snapshot.entry_by_name(name).expect("the name is known");
    entry.for_each(&envelope(name, key, true), |route| routes.push((route.target.id(), route.handler, route.exact)));
    routes
}

#[test]
fn a_group_that_wants_an_event_by_name_and_by_pattern_gets_it_by_name() {
    for order in [["quake.>", "quake.risk"], ["quake.risk", "quake.>"]] {
        for key in [None, Some("north")] {
            let mut table = Table::default();
            for pattern in order {
                let exact = pattern == "quake.risk";
                let key = key.filter(|_| exact).map(Arc::from);
                table.subscribe(Subscription { key, ..subscription(1, pattern, u32::from(exact)) });
            }
            assert_eq!(routes(&table, "quake.risk", key), [(1, 1, true)], "{order:?} with the key {key:?}");
        }
    }
}

#[test]
fn a_name_nobody_declared_is_forgotten_with_the_last_subscription_by_that_name() {
    let mut table = Table::default();
    table.subscribe(subscription(1, ">", 0));
    for group in 2..100 {
        table.subscribe(subscription(group, &format!("visitor.{group}"), 0));
        table.withdraw(group);
    }
    assert_eq!(table.name_count(), 0);
}

#[test]
fn the_typed_description_of_an_event_is_kept_whichever_came_first() {
    let untyped = declared("a.a", Kind::Notification, Some("region"));
    let typed = DescriptorRef::of::<Typed>();
    for order in [[&untyped, &typed], [&typed, &untyped]] {
        let mut table = Table::<Group>::default();
        for descriptor in order {
            table.declare(descriptor.clone()).expect("they describe the same event");
        }
        let snapshot = table.snapshot();
        assert!(snapshot.descriptors().all(|known| known.same(&typed)));
        assert_eq!(table.name_count(), 1);
    }
}

#[test]
fn what_contradicts_a_declaration_is_refused_with_what_differs() {
    let check = |second: DescriptorRef, what: &str| {
        let mut table = Table::<Group>::default();
        let first = DescriptorRef::of::<Typed>();
        table.declare(first.clone()).expect("the first");
        assert_eq!(table.declare(second).expect_err("contradicts").what, what);
        assert!(table.snapshot().descriptors().all(|known| known.same(&first)));
    };
    check(declared("a.a", Kind::Request, Some("region")), "kind");
    check(declared("a.a", Kind::Notification, None), "key");
    check(declared("a.a", Kind::Notification, Some("cell")), "key");
    check(DescriptorRef::of::<Rival>(), "Rust type");
}
