//! Triggers by table and by search: what is considered, what is due when, what fires, what expires.

mod concurrency;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::definition::{BatchRule, EventTrigger, JoinTrigger, OnConflict, OnExpire, SumRule, Workflow};
use crate::event::CloudEvent;
use crate::pattern::Pattern;
use crate::time::Timestamp;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn event(kind: &str, data: Value) -> CloudEvent {
    CloudEvent::parse(json!({ "id": "1", "source": "/t", "type": kind, "data": data })).unwrap()
}

fn pattern(kinds: &[&str]) -> Pattern {
    Pattern::parse(&json!({ "type": kinds })).unwrap()
}

fn batched(rule: BatchRule) -> Trigger {
    Trigger::Event(EventTrigger {
        pattern: pattern(&["t"]),
        filter: None,
        key: None,
        batch: Some(rule),
        params: BTreeMap::new(),
    })
}

const NO_BOUND: BatchRule = BatchRule { quiet: None, max_wait: None, count: None, sum: None };

fn join(on_expire: OnExpire) -> Trigger {
    Trigger::Join(JoinTrigger {
        parts: vec![pattern(&["features", "both"]), pattern(&["labels", "both"])],
        filter: None,
        key: Some(Expression::parse("data.day").unwrap()),
        within: seconds(60),
        on_expire,
        params: BTreeMap::new(),
    })
}

/// Considers an event the way the store does.
fn consider(trigger: &Trigger, event: &CloudEvent) -> Option<Considered> {
    let mut workflow = Workflow::parse("workflow: w\nsteps:\n  a: { run: [x] }\n").unwrap();
    workflow.triggers.push(trigger.clone());
    let object = Value::Object(event.attributes().clone());
    let triggers = Triggers::new([Arc::new(workflow)]);
    let matched = triggers.matching(event, &object).pop()?;
    let scope = Scope { roots: event.attributes().clone(), ..Scope::default() };
    Some(trigger.consider(matched.parts, &scope))
}

fn arrival(trigger: &Trigger, kind: &str) -> Arrival {
    match consider(trigger, &event(kind, json!({ "day": "monday" }))) {
        Some(Considered::Accepted(arrival)) => arrival,
        other => panic!("{other:?}"),
    }
}

#[test]
fn keys_are_plain_values() {
    assert_eq!(key_text(json!("eu")), Ok("eu".to_owned()));
    assert_eq!(key_text(json!(7)), Ok("7".to_owned()));
    for wrong in [json!(null), json!([1]), json!({"a": 1}), json!("x".repeat(600))] {
        assert!(key_text(wrong).is_err());
    }
}

#[test]
fn a_batch_is_due_at_the_first_bound_it_meets() {
    let sum = SumRule { of: Expression::parse("data.rows").unwrap(), at_least: 100.0 };
    let trigger = batched(BatchRule {
        quiet: Some(seconds(10)),
        max_wait: Some(seconds(60)),
        count: Some(5),
        sum: Some(sum),
    });
    let batch = |opened, last, count, sum| Gathering {
        opened_at: at(opened),
        last_at: at(last),
        count,
        sum: Some(sum),
        filled: [].into(),
    };
    assert_eq!(trigger.due_at(&batch(0, 0, 1, 1.0)), Some(at(10)));
    assert_eq!(trigger.due_at(&batch(0, 55, 4, 1.0)), Some(at(60)));
    assert_eq!(trigger.due_at(&batch(0, 20, 5, 1.0)), Some(at(20)));
    assert_eq!(trigger.due_at(&batch(0, 20, 2, 100.0)), Some(at(20)));
    let by_count = batched(BatchRule { count: Some(5), ..NO_BOUND });
    assert_eq!(by_count.due_at(&batch(0, 20, 4, 1e9)), None);
    assert_eq!(by_count.ending(&batch(0, 20, 5, 0.0)), Ending::Fires("a batch of 5 events".to_owned()));
}

#[test]
fn a_sum_takes_numbers_and_nothing_else() {
    let of = Expression::parse("data.rows").unwrap();
    let trigger = batched(BatchRule { sum: Some(SumRule { of, at_least: 10.0 }), ..NO_BOUND });
    let arrives = |rows: Value| match consider(&trigger, &event("t", json!({ "rows": rows }))) {
        Some(Considered::Accepted(arrival)) => Ok(arrival),
        Some(Considered::FilterError(wrong)) => Err(wrong),
        other => panic!("{other:?}"),
    };
    let mut batch = Gathering::open(&arrives(json!(4)).unwrap(), at(0));
    assert_eq!(trigger.due_at(&batch), None);
    batch.take(&arrives(json!(6.5)).unwrap(), at(1));
    assert_eq!((batch.sum, trigger.due_at(&batch)), (Some(10.5), Some(at(1))));
    for wrong in [json!("7"), json!(null), json!([1]), json!(true)] {
        let said = arrives(wrong.clone()).unwrap_err();
        assert!(
            said.contains("batch.sum `data.rows`") && said.contains("must be a number"),
            "{wrong}: {said}"
        );
    }
    // However much comes, a sum stays a number that can be written down.
    let huge = Arrival { amount: Some(f64::MAX), ..Arrival::default() };
    batch.take(&huge, at(2));
    batch.take(&huge, at(2));
    let stored = serde_json::to_string(&batch).unwrap();
    assert_eq!(serde_json::from_str::<Gathering>(&stored).unwrap().sum, Some(f64::MAX));
}

#[test]
fn a_join_fires_once_every_part_was_seen() {
    let trigger = join(OnExpire::Drop);
    assert_eq!(consider(&trigger, &event("other", json!({}))), None);
    let (features, labels) = (arrival(&trigger, "features"), arrival(&trigger, "labels"));
    assert_eq!((features.key.as_str(), features.parts.clone()), ("monday", vec![0]));
    let mut gathering = Gathering::open(&features, at(0));
    assert_eq!((trigger.due_at(&gathering), trigger.missing(&gathering)), (Some(at(60)), vec![1]));
    assert_eq!(gathering.take(&features, at(50)), None, "its part is filled: it joins all the same");
    let said = trigger.taken_words(&gathering, None).unwrap();
    assert_eq!(said, "its part was seen already: event labels or both is missing");
    assert_eq!(trigger.due_at(&gathering), Some(at(60)), "the window begins with the first event");
    assert_eq!(gathering.take(&labels, at(59)), Some(1));
    assert_eq!((gathering.count, trigger.due_at(&gathering)), (3, Some(at(59))));
    assert_eq!(trigger.ending(&gathering), Ending::Fires("a join of 3 events".to_owned()));
}

#[test]
fn an_event_that_matches_several_parts_fills_the_first_open_one() {
    let trigger = join(OnExpire::Drop);
    let both = arrival(&trigger, "both");
    assert_eq!(both.parts, [0, 1]);
    let mut gathering = Gathering::open(&both, at(0));
    assert_eq!(trigger.missing(&gathering), [1]);
    assert_eq!(gathering.take(&both, at(1)), Some(1));
    assert_eq!(trigger.due_at(&gathering), Some(at(1)));
    // And where the first is taken, the second.
    let mut gathering = Gathering::open(&arrival(&trigger, "features"), at(0));
    assert_eq!(gathering.take(&both, at(1)), Some(1));
}

#[test]
fn a_join_that_expires_is_dropped_or_fires_with_what_came() {
    let gathering = Gathering::open(&arrival(&join(OnExpire::Drop), "features"), at(0));
    let wrong = "event labels or both did not come within 1m 0s";
    assert_eq!(
        join(OnExpire::Drop).ending(&gathering),
        Ending::Expires(format!("the join expired: {wrong}"))
    );
    assert_eq!(join(OnExpire::Fire).ending(&gathering), Ending::Fires(format!("a join of 1 event: {wrong}")));
}

#[test]
fn a_trigger_is_known_by_what_it_waits_for() {
    let text = |before: &str, batch: &str| {
        format!(
            "workflow: w\non:\n{before}  - event: {{ type: [t] }}\n    batch: {batch}\n  - cron: '0 3 * * *'\nsteps:\n  \
             a: {{ run: [x] }}\n"
        )
    };
    let ids = |text: &str| trigger_ids(&Workflow::parse(text).unwrap());
    let plain = ids(&text("", "{ count: 5 }"));
    let moved = ids(&text("  - event: { type: [other] }\n", "{ quiet: 5s }"));
    assert_eq!(plain, moved[1..], "neither its place nor its batch rule");
    let filtered = ids(&text("", "{ count: 5 }\n    where: data.rows > 5"));
    assert!(filtered[0] != plain[0] && filtered[1] == plain[1]);
    let twins = ids(&text("  - event: { type: [t] }\n", "{ count: 5 }"));
    assert_eq!(twins[0], plain[0], "of two that wait for the same, the first keeps the name");
    assert_ne!(twins[0], twins[1]);
}

#[test]
fn batches_follow_one_another() {
    let facts = |id: &str, count, sum| BatchFacts {
        key: id.to_owned(),
        count,
        sum,
        first: json!(format!("{id}-first")),
        last: json!(format!("{id}-last")),
    };
    let both = facts("a", 3, Some(1.5)).followed_by(&facts("b", 4, Some(2.0)), 2);
    assert_eq!((both.key.as_str(), both.count, both.sum), ("b", 5, Some(3.5)));
    assert_eq!((both.first, both.last), (json!("a-first"), json!("b-last")));
    let both = facts("b", 4, None).preceded_by(&facts("a", 3, Some(1.5)), 3);
    assert_eq!((both.key.as_str(), both.count, both.sum), ("b", 7, Some(1.5)));
    assert_eq!((both.first, both.last), (json!("a-first"), json!("b-last")));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// When somebody looks changes nothing: what is gathered together depends on when events came. And no event is in
    /// two gatherings or in none.
    #[test]
    fn looking_late_changes_nothing(
        pauses in prop::collection::vec((0i64..30, 0u8..3), 1..40),
        kind in 0u8..4,
        looks in prop::collection::vec(any::<bool>(), 40),
    ) {
        let trigger = match kind {
            0 => batched(BatchRule { quiet: Some(seconds(10)), max_wait: Some(seconds(40)), ..NO_BOUND }),
            1 => batched(BatchRule { count: Some(3), quiet: Some(seconds(20)), ..NO_BOUND }),
            2 => join(OnExpire::Drop),
            _ => join(OnExpire::Fire),
        };
        let kinds = if kind < 2 { ["t"; 3] } else { ["features", "labels", "both"] };
        let gather = |looks: &dyn Fn(usize) -> bool| {
            let (mut open, mut ended, mut now) = (None::<(Gathering, Vec<usize>)>, Vec::new(), 0);
            let over_at = |it: &(Gathering, Vec<usize>), now| trigger.due_at(&it.0).is_some_and(|due| due <= at(now));
            for (place, &(pause, which)) in pauses.iter().enumerate() {
                // Somebody looks all the time between two events, or only the next event shows that it is over.
                if looks(place) && (now..now + pause).any(|now| open.as_ref().is_some_and(|it| over_at(it, now))) {
                    ended.extend(open.take());
                }
                now += pause;
                let over = |it: &(Gathering, Vec<usize>)| over_at(it, now);
                // A restart: only what is stored is left.
                open = open.map(|(gathering, events)| {
                    let stored = serde_json::to_string(&gathering).unwrap();
                    (serde_json::from_str(&stored).unwrap(), events)
                });
                if open.as_ref().is_some_and(over) {
                    ended.extend(open.take());
                }
                let arrival = arrival(&trigger, kinds[usize::from(which)]);
                match &mut open {
                    Some((gathering, events)) => {
                        gathering.take(&arrival, at(now));
                        events.push(place);
                    }
                    None => open = Some((Gathering::open(&arrival, at(now)), vec![place])),
                }
                if open.as_ref().is_some_and(over) {
                    ended.extend(open.take());
                }
            }
            ended.extend(open);
            ended.into_iter().map(|(gathering, events)| (trigger.ending(&gathering), events)).collect::<Vec<_>>()
        };
        let eager = gather(&|_| true);
        prop_assert_eq!(&eager, &gather(&|place| looks[place]));
        prop_assert_eq!(&eager, &gather(&|_| false));
        let events: Vec<usize> = eager.iter().flat_map(|(_, events)| events.clone()).collect();
        prop_assert_eq!(events, (0..pauses.len()).collect::<Vec<_>>());
        for (ending, events) in &eager {
            prop_assert!(!events.is_empty());
            if let (Ending::Expires(_), 2..) = (ending, kind) {
                prop_assert!(kind == 2, "only `drop` drops");
            }
        }
    }
}
