//! The concurrency rule, cell by cell, and then driven at random against what it promises.

use proptest::prelude::*;

use super::*;
use crate::definition::Concurrency;

const COALESCE: OnConflict = OnConflict::Coalesce;
const CANCEL: OnConflict = OnConflict::CancelRunning { before: None };

fn rule(limit: u32, on_conflict: OnConflict, cooldown: Option<u64>) -> LaneRule {
    LaneRule { limit, on_conflict, cooldown: cooldown.map(seconds) }
}

/// Policy × what is found, as the table in `concurrency` has it.
#[test]
fn the_table_of_policies() {
    let now = at(100);
    let free = Lane { last_start: Some(at(90)), ..Lane::default() };
    let full = Lane { running: 1, cancellable: 1, ..free };
    let kept = Lane { cancellable: 0, ..full };
    let ending = Lane { ending: 1, cancellable: 0, ..full };
    let taken = Lane { waiting: 1, absorbs: true, ..full };
    let line = Lane { waiting: 1, ..free };
    let no_room = Hindrance::Full { running: 1, limit: 1 };
    let before = Hindrance::Line { before: 1 };
    let cooling = Hindrance::Cooldown { until: at(110) };
    use Admission::{Absorb, Cancel, Skip, Start, Wait};
    // Without cooldown (10 s after the last start): (policy, free, full, full and its step begun, full and ending, full
    // and a run waits that takes events in, free and a retried run waits).
    let policies = [
        (COALESCE, Start, Wait(no_room), Wait(no_room), Wait(no_room), Absorb(no_room), Wait(before)),
        (OnConflict::Queue, Start, Wait(no_room), Wait(no_room), Wait(no_room), Wait(no_room), Wait(before)),
        (OnConflict::Skip, Start, Skip(no_room), Skip(no_room), Skip(no_room), Skip(no_room), Skip(before)),
        (CANCEL, Start, Cancel(1, no_room), Wait(no_room), Wait(no_room), Absorb(no_room), Wait(before)),
        (OnConflict::Parallel, Start, Start, Start, Start, Wait(before), Wait(before)),
    ];
    for (policy, on_free, on_full, on_kept, on_ending, on_taken, on_line) in policies {
        let rule = rule(1, policy, None);
        let found = [free, full, kept, ending, taken, line].map(|lane| rule.decide(&lane, Asks::Firing, now));
        assert_eq!(found, [on_free, on_full, on_kept, on_ending, on_taken, on_line], "{policy:?}");
    }
    // In a cooldown of 20 s since the last start: (policy, with nobody waiting, with a run that takes events in).
    let policies = [
        (COALESCE, Wait(cooling), Absorb(cooling)),
        (OnConflict::Queue, Wait(cooling), Wait(cooling)),
        (OnConflict::Skip, Skip(cooling), Skip(cooling)),
        (CANCEL, Wait(cooling), Absorb(cooling)),
        (OnConflict::Parallel, Wait(cooling), Wait(cooling)),
    ];
    for (policy, alone, with_waiting) in policies {
        let rule = rule(1, policy, Some(20));
        for lane in [free, full] {
            assert_eq!(rule.decide(&lane, Asks::Firing, now), alone, "{policy:?}");
        }
        assert_eq!(rule.decide(&taken, Asks::Firing, now), with_waiting, "{policy:?}");
        assert_eq!(rule.decide(&free, Asks::Firing, at(110)), Start, "{policy:?}: it is over at its end");
        assert_eq!(rule.decide(&free, Asks::Waiting, now), Wait(cooling), "{policy:?}");
        assert_eq!(rule.decide(&free, Asks::Retried, now), Start, "{policy:?}: a retry is somebody's wish");
        let later = rule.decide(&full, Asks::Waiting, at(110));
        let expected = match policy {
            OnConflict::CancelRunning { .. } => Cancel(1, no_room),
            OnConflict::Parallel => Start,
            OnConflict::Coalesce | OnConflict::Queue | OnConflict::Skip => Wait(no_room),
        };
        assert_eq!(later, expected, "{policy:?}: cancels when the cooldown is over");
        assert_ne!(rule.decide(&full, Asks::Retried, at(110)), Cancel(1, no_room), "{policy:?}");
    }
    // Of several that go on, only as many as stand in its way.
    let three = Lane { running: 3, cancellable: 3, ..free };
    assert!(matches!(rule(3, CANCEL, None).decide(&three, Asks::Firing, now), Cancel(1, _)));
    assert!(matches!(rule(2, CANCEL, None).decide(&three, Asks::Firing, now), Cancel(2, _)));
    assert_eq!(cooling.to_string(), "cooldown until 1970-01-01T00:01:50.000Z");
}

/// What may happen in a lane.
#[derive(Clone, Debug)]
enum Happening {
    Fires,
    Passes(u64),
    Begins(prop::sample::Index),
    Ends(prop::sample::Index),
    Retried(prop::sample::Index),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        4 => Just(Happening::Fires),
        2 => (0u64..15).prop_map(Happening::Passes),
        1 => any::<prop::sample::Index>().prop_map(Happening::Begins),
        2 => any::<prop::sample::Index>().prop_map(Happening::Ends),
        1 => any::<prop::sample::Index>().prop_map(Happening::Retried),
    ];
    prop::collection::vec(one, 1..80)
}

#[derive(Debug, Default)]
struct Model {
    now: i64,
    runs: Vec<ModelRun>,
    /// Events that were told that they start nothing.
    skipped: Vec<u32>,
    last_start: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct ModelRun {
    state: &'static str,
    begun: bool,
    ending: bool,
    started: Vec<Timestamp>,
    events: Vec<u32>,
}

impl Model {
    fn lane(&self, before: usize) -> Lane {
        let count =
            |test: &dyn Fn(&ModelRun) -> bool| self.runs.iter().filter(|run| test(run)).count() as u64;
        let waiting = self.runs[..before].iter().filter(|run| run.state == "waiting");
        Lane {
            running: count(&|run| run.state == "running"),
            ending: count(&|run| run.state == "running" && run.ending),
            cancellable: count(&|run| run.state == "running" && !run.ending && !run.begun),
            waiting: waiting.clone().count() as u64,
            absorbs: waiting.clone().any(|run| run.started.is_empty()),
            last_start: self.last_start,
        }
    }

    fn start(&mut self, run: usize) {
        let now = at(self.now);
        let run = &mut self.runs[run];
        if run.started.is_empty() {
            self.last_start = Some(now);
        }
        run.started.push(now);
        run.state = "running";
    }

    /// Cancels the oldest that may be, for this run, which takes their events over.
    fn cancel(&mut self, count: u64, heir: usize) {
        let may = |run: &ModelRun| run.state == "running" && !run.ending && !run.begun;
        let ending: Vec<usize> = (0..self.runs.len()).filter(|&run| may(&self.runs[run])).collect();
        for run in ending.into_iter().take(count as usize) {
            self.runs[run].ending = true;
            let events = std::mem::take(&mut self.runs[run].events);
            self.runs[heir].events.extend(events);
        }
    }

    fn fires(&mut self, rule: &LaneRule, event: u32) {
        let lane = self.lane(self.runs.len());
        let admission = rule.decide(&lane, Asks::Firing, at(self.now));
        if let Admission::Skip(_) = admission {
            return self.skipped.push(event);
        }
        if let Admission::Absorb(_) = admission {
            let waits = |run: &&mut ModelRun| run.state == "waiting" && run.started.is_empty();
            return self.runs.iter_mut().rev().find(waits).unwrap().events.push(event);
        }
        self.runs.push(ModelRun { state: "waiting", events: vec![event], ..ModelRun::default() });
        let run = self.runs.len() - 1;
        match admission {
            Admission::Start => self.start(run),
            Admission::Cancel(count, _) => self.cancel(count, run),
            Admission::Wait(_) | Admission::Skip(_) | Admission::Absorb(_) => {}
        }
    }

    /// What the store does whenever something may have changed.
    fn look(&mut self, rule: &LaneRule) {
        for run in 0..self.runs.len() {
            if self.runs[run].state != "waiting" {
                continue;
            }
            let asks = if self.runs[run].started.is_empty() { Asks::Waiting } else { Asks::Retried };
            let lane = Lane { waiting: 0, absorbs: false, ..self.lane(run) };
            match rule.decide(&lane, asks, at(self.now)) {
                Admission::Start => self.start(run),
                Admission::Cancel(count, _) => {
                    self.cancel(count, run);
                    break;
                }
                Admission::Wait(Hindrance::Cooldown { .. }) => {}
                Admission::Wait(_) => break,
                other @ (Admission::Absorb(_) | Admission::Skip(_)) => panic!("a waiting run: {other:?}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// At most `limit` at once, starts a cooldown apart, and every event in exactly one place.
    #[test]
    fn a_lane_keeps_its_promises(
        policy in prop::sample::select(vec![
            COALESCE, OnConflict::Queue, OnConflict::Skip, CANCEL, OnConflict::Parallel,
        ]),
        limit in 1u32..4,
        cooldown in prop::option::of(1u64..20),
        happenings in happenings(),
    ) {
        let rule = rule(limit, policy, cooldown);
        let (mut model, mut events) = (Model::default(), 0u32);
        for happening in happenings {
            let with_state = |model: &Model, state: &str| -> Vec<usize> {
                (0..model.runs.len()).filter(|&run| model.runs[run].state == state).collect()
            };
            match happening {
                Happening::Fires => {
                    model.fires(&rule, events);
                    events += 1;
                }
                Happening::Passes(seconds) => model.now += seconds as i64,
                Happening::Begins(which) => {
                    let running = with_state(&model, "running");
                    if !running.is_empty() {
                        model.runs[running[which.index(running.len())]].begun = true;
                    }
                }
                Happening::Ends(which) => {
                    let running = with_state(&model, "running");
                    if !running.is_empty() {
                        let run = running[which.index(running.len())];
                        model.runs[run].state = "over";
                        model.runs[run].ending = false;
                    }
                }
                Happening::Retried(which) => {
                    let over = with_state(&model, "over");
                    if !over.is_empty() {
                        model.runs[over[which.index(over.len())]].state = "waiting";
                    }
                }
            }
            model.look(&rule);
            let running = with_state(&model, "running");
            if policy != OnConflict::Parallel {
                prop_assert!(running.len() <= limit as usize, "{} run at once", running.len());
            }
            let fresh = model.runs.iter().filter(|run| run.state == "waiting" && run.started.is_empty()).count();
            if matches!(policy, OnConflict::Coalesce | OnConflict::CancelRunning { .. }) {
                prop_assert!(fresh <= 1, "{fresh} runs wait");
            }
            if policy == OnConflict::Skip {
                prop_assert_eq!(fresh, 0);
            }
            // Nobody waits without a reason.
            let waiting = with_state(&model, "waiting");
            if let Some(&first) = waiting.first() {
                let asks = if model.runs[first].started.is_empty() { Asks::Waiting } else { Asks::Retried };
                let lane = Lane { waiting: 0, absorbs: false, ..model.lane(first) };
                prop_assert_ne!(rule.decide(&lane, asks, at(model.now)), Admission::Start);
            }
        }
        let mut starts: Vec<Timestamp> = model.runs.iter().filter_map(|run| run.started.first().copied()).collect();
        starts.sort();
        if let Some(cooldown) = cooldown {
            prop_assert!(starts.windows(2).all(|two| two[1].since(two[0]) >= seconds(cooldown)));
        }
        let mut ends: Vec<u32> = model.runs.iter().flat_map(|run| run.events.clone()).chain(model.skipped).collect();
        ends.sort_unstable();
        prop_assert_eq!(ends, (0..events).collect::<Vec<_>>(), "each event ends in one place");
    }
}

#[test]
fn a_workflow_gives_the_rule_of_its_lanes() {
    let mut workflow = Workflow::parse("workflow: w\nsteps:\n  a: { run: [x] }\n").unwrap();
    workflow.concurrency = Concurrency { key: None, limit: 2, on_conflict: OnConflict::Parallel };
    assert!(workflow.lane_rule().is_free());
    workflow.cooldown = Some(seconds(5));
    assert_eq!(workflow.lane_rule(), rule(2, OnConflict::Parallel, Some(5)));
    assert!(!workflow.lane_rule().is_free());
}
