//! Subscribers of every kind against a model that remembers everything.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Publish(u8),
    Join(Begin, Wants),
    /// Which of the subscriptions reads how many.
    Read(usize, usize),
    Leave(usize),
}

#[derive(Debug, Clone)]
enum Begin {
    Last(usize),
    /// The event of this number, counted from the latest.
    Since(usize),
    SinceId(usize),
    Unknown,
}

#[derive(Debug, Clone, Copy)]
enum Wants {
    All,
    Key(u8),
    Odd,
    Least(u64),
}

impl Wants {
    fn wants(self, key: u8, number: u64) -> bool {
        match self {
            Self::All => true,
            Self::Key(wanted) => wanted == key,
            Self::Odd => number % 2 == 1,
            Self::Least(least) => number >= least,
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let begin = prop_oneof![
        (0_usize..12).prop_map(Begin::Last),
        (0_usize..12).prop_map(Begin::Since),
        (0_usize..12).prop_map(Begin::SinceId),
        Just(Begin::Unknown),
    ];
    let wants = prop_oneof![
        Just(Wants::All),
        (0_u8..3).prop_map(Wants::Key),
        Just(Wants::Odd),
        (0_u64..40).prop_map(Wants::Least),
    ];
    prop_oneof![
        6 => (0_u8..3).prop_map(Step::Publish),
        2 => (begin, wants).prop_map(|(begin, wants)| Step::Join(begin, wants)),
        4 => (any::<usize>(), 1_usize..8).prop_map(|(which, most)| Step::Read(which, most)),
        1 => any::<usize>().prop_map(Step::Leave),
    ]
}

/// A subscription, and what a naive one would be owed: numbers from 1.
struct Model {
    replay: Replay<Received<Told>>,
    wants: Wants,
    /// Everything before this was given, or was not wanted, or was told as missed.
    next: u64,
    gap: bool,
}

impl Model {
    /// Takes what the subscription gives, and compares. `all` is each event's key, `kept` the first number that is kept.
    fn read(&mut self, all: &[u8], kept: u64) -> Result<bool, TestCaseError> {
        let wanted = |number: &u64| self.wants.wants(all[*number as usize - 1], *number);
        let next = self.replay.next().now_or_never();
        match next {
            Some(None) => prop_assert!(false, "the history has not ended"),
            Some(Some(Ok(recorded))) => {
                let number = recorded.position.number();
                prop_assert_eq!(recorded.event.number, number);
                prop_assert!(wanted(&number) && number >= self.next);
                let skipped = (self.next..number).filter(wanted).count();
                prop_assert!(skipped == 0 || self.gap, "{} were skipped without a word", skipped);
                prop_assert!(
                    (self.next..number).filter(wanted).all(|number| number < kept),
                    "what is kept is not skipped"
                );
                (self.next, self.gap) = (number + 1, false);
            }
            Some(Some(Err(missed))) => {
                prop_assert!(missed.events.is_none() || kept > self.next, "nothing was missed");
                self.gap = true;
            }
            None => {
                let end = all.len() as u64;
                let left: Vec<_> = (self.next..=end).filter(wanted).collect();
                prop_assert!(left.iter().all(|number| self.gap && *number < kept), "{left:?} are still to come");
                (self.next, self.gap) = (end + 1, false);
                prop_assert_eq!(self.replay.position().number(), end);
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn join(node: &Node, ids: &[EventId], all: &[u8], kept: u64, begin: &Begin, wants: Wants) -> Model {
    let end = all.len() as u64;
    let subscribe = node.bus().subscribe::<Told>();
    let subscribe = match wants {
        Wants::All => subscribe,
        Wants::Key(key) => subscribe.key(&key.to_string()),
        Wants::Odd => subscribe.filter(|told| told.number % 2 == 1),
        Wants::Least(least) => {
            subscribe.conditions(format!(r#"{{"number": {{"gte": {least}}}}}"#).parse().expect("conditions"))
        }
    };
    let base = node.wait(node.bus().subscribe::<Told>().last(0)).expect("subscribed").position();
    let (subscribe, next) = match begin {
        Begin::Last(count) => {
            let wanted = (kept..=end).rev().filter(|number| wants.wants(all[*number as usize - 1], *number));
            (subscribe.last(*count), wanted.take(*count).last().unwrap_or(end + 1))
        }
        Begin::Since(back) => {
            let number = end.saturating_sub(*back as u64);
            (subscribe.since(Position { number, ..base }), number + 1)
        }
        Begin::SinceId(back) => {
            let number = end.saturating_sub(*back as u64);
            let known = number >= kept && number > 0;
            let id = if known { ids[number as usize - 1] } else { EventId::next() };
            (subscribe.since(id), if known { number + 1 } else { kept })
        }
        Begin::Unknown => (subscribe.since(Since::from_text("?")), kept),
    };
    Model { replay: node.wait(subscribe).expect("subscribed"), wants, next, gap: false }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_history_gives_what_a_naive_model_gives(steps in prop::collection::vec(step(), 1..120), events in 1_usize..20) {
        let node = Node::keeping(History::new().events(events));
        let (mut all, mut ids, mut models) = (Vec::<u8>::new(), Vec::new(), Vec::<Model>::new());
        for step in steps {
            let kept = (all.len() as u64 + 1).saturating_sub(events as u64).max(1);
            match step {
                Step::Publish(key) => {
                    all.push(key);
                    ids.push(node.wait(node.bus().publish(told(&key.to_string(), all.len() as u64))).expect("published").id);
                }
                Step::Join(begin, wants) => models.push(join(&node, &ids, &all, kept, &begin, wants)),
                Step::Read(which, most) if !models.is_empty() => {
                    let at = which % models.len();
                    for _ in 0..most {
                        if !models[at].read(&all, kept)? {
                            break;
                        }
                    }
                }
                Step::Leave(which) if !models.is_empty() => {
                    let at = which % models.len();
                    models.swap_remove(at);
                }
                Step::Read(..) | Step::Leave(_) => {}
            }
        }
        let kept = (all.len() as u64 + 1).saturating_sub(events as u64).max(1);
        for model in &mut models {
            while model.read(&all, kept)? {}
        }
        prop_assert_eq!(node.bus().topology().histories[0].readers, models.len());
    }
}
