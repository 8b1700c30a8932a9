//! What gates decide.

use super::*;
use crate::evaluation::{Answer, Measured, Measurement};

fn champion(accuracy: f64) -> Champion {
    Champion {
        version: 3,
        metrics: BTreeMap::from([("accuracy".to_owned(), accuracy)]),
        artifacts: BTreeMap::new(),
    }
}

fn bounds(min: f64) -> Check {
    Check::Bounds { metric: "accuracy".to_owned(), min: Some(min), max: None, because: None }
}

fn change(min_change: f64, direction: Direction) -> Check {
    Check::Change { metric: "accuracy".to_owned(), min_change, direction, because: None }
}

fn gate(checks: Vec<Check>, no_champion: NoChampion) -> Gate {
    Gate { checks, no_champion, alpha: Gate::ALPHA, inconclusive: OnInconclusive::Fail }
}

fn decide(checks: Vec<Check>, candidate: Option<f64>, champion: Option<Champion>) -> Decision {
    let gate = gate(checks, NoChampion::Absolute);
    let metrics = candidate.map(|value| ("accuracy".to_owned(), Found::One(value))).into_iter().collect();
    let evidence = Evidence {
        metrics: &metrics,
        evaluations: &[],
        champion: champion.as_ref(),
        scope: &Scope::default(),
    };
    gate.decide(evidence)
}

#[test]
fn the_first_model_is_judged_by_absolute_checks_alone() {
    let both = || vec![bounds(0.8), change(0.0, Direction::Higher)];
    assert_eq!(decide(both(), Some(0.9), None).verdict, Verdict::Pass);
    assert_eq!(decide(both(), Some(0.7), None).verdict, Verdict::Fail);
    let alone = decide(vec![change(0.0, Direction::Higher)], Some(0.9), None);
    assert_eq!(alone.verdict, Verdict::Inconclusive);
}

#[test]
fn a_change_counts_towards_better() {
    let against = |direction, candidate| {
        decide(vec![change(0.01, direction)], Some(candidate), Some(champion(0.9))).verdict
    };
    assert_eq!(against(Direction::Higher, 0.92), Verdict::Pass);
    assert_eq!(against(Direction::Higher, 0.905), Verdict::Fail);
    assert_eq!(against(Direction::Lower, 0.88), Verdict::Pass);
    assert_eq!(against(Direction::Lower, 0.92), Verdict::Fail);
    assert_eq!(against(Direction::Higher, 0.91), Verdict::Pass, "0.91 is 0.01 more than 0.9");
}

#[test]
fn missing_and_non_finite_numbers_never_pass() {
    for candidate in [None, Some(f64::NAN), Some(f64::INFINITY)] {
        assert_eq!(decide(vec![bounds(0.0)], candidate, None).verdict, Verdict::Error, "{candidate:?}");
        let change = vec![change(-1.0, Direction::Higher)];
        assert_eq!(decide(change, candidate, Some(champion(0.9))).verdict, Verdict::Error, "{candidate:?}");
    }
    let nameless = Champion { metrics: BTreeMap::new(), ..champion(0.9) };
    assert_eq!(
        decide(vec![change(0.0, Direction::Higher)], Some(0.9), Some(nameless)).verdict,
        Verdict::Error
    );
}

#[test]
fn the_reason_holds_the_numbers() {
    let decision = decide(vec![change(0.0, Direction::Higher)], Some(0.71), Some(champion(0.952)));
    assert_eq!(decision.reason, "accuracy 0.71 against 0.952 of champion 3: −0.242, not worse was asked for");
}

#[test]
fn a_gate_without_champion_may_be_told_to_fail() {
    let gate = gate(vec![bounds(0.5)], NoChampion::Fail);
    let metrics = BTreeMap::from([("accuracy".to_owned(), Found::One(0.9))]);
    let scope = Scope::default();
    let evidence = Evidence { metrics: &metrics, evaluations: &[], champion: None, scope: &scope };
    assert_eq!(gate.decide(evidence).verdict, Verdict::Fail);
}

fn decide_with(
    checks: Vec<Check>,
    evaluations: &[(&str, &Evaluation)],
    champion: Option<Champion>,
) -> Decision {
    let scope = Scope::default();
    gate(checks, NoChampion::Absolute).decide(Evidence {
        metrics: &BTreeMap::new(),
        evaluations,
        champion: champion.as_ref(),
        scope: &scope,
    })
}

/// A check of `accuracy`, in slices of `country` or over all examples.
fn statistical(role: Role, by: Option<&str>, min_examples: Option<u64>) -> Check {
    Check::Statistical(Box::new(StatisticalCheck {
        metric: "accuracy".to_owned(),
        role,
        direction: Direction::Higher,
        by: by.map(str::to_owned),
        min_examples,
        because: None,
    }))
}

/// A difference as a normal approximation with this standard error has it, at alpha 0.05.
fn difference(estimate: f64, se: f64, margin: f64) -> Difference {
    const Z: f64 = 1.6448536269514722;
    let p = |z: f64| (-0.717 * z - 0.416 * z * z).exp().clamp(0.0, 1.0) / 2.0;
    // Lin's approximation of the normal tail (1990), good to two digits: enough to stand on one side of alpha.
    let tail = |z: f64| if z >= 0.0 { p(z) } else { 1.0 - p(-z) };
    Difference {
        estimate,
        low: estimate - Z * se,
        high: estimate + Z * se,
        statistic: Some(estimate / se),
        p_better: tail(estimate / se),
        p_worse: tail(-estimate / se),
        p_margin: tail((estimate + margin) / se),
        n: 1000,
        test: crate::statistics::Test::Tango,
        needed: Some(4200),
    }
}

fn compared(slice: Option<&str>, examples: u64, estimate: f64, se: f64) -> Measured {
    let found = Measurement::Compared {
        candidate: 0.9 + estimate,
        champion: 0.9,
        difference: difference(estimate, se, 0.005),
    };
    Measured { slice: slice.map(str::to_owned), examples, found }
}

/// The decision of a gate with these checks, each of which was answered with what stands beside it.
fn judged(checks: Vec<(Check, Vec<Measured>)>, champion: Option<Champion>) -> Decision {
    let answers = checks
        .iter()
        .filter_map(|(check, measured)| {
            let Check::Statistical(check) = check else { return None };
            Some(Answer { question: check.question(Gate::ALPHA), measured: measured.clone() })
        })
        .collect();
    let evaluation = Evaluation { examples: 1000, holdout: None, champion: None, answers };
    decide_with(checks.into_iter().map(|(check, _)| check).collect(), &[("compare", &evaluation)], champion)
}

#[test]
fn each_role_asks_for_its_own_proof() {
    let guardrail = Role::Guardrail { margin: 0.005 };
    for (role, estimate, se, verdict, words) in [
        (Role::Success, 0.02, 0.005, Verdict::Pass, "shown with 95 % confidence"),
        (
            Role::Success,
            0.005,
            0.005,
            Verdict::Inconclusive,
            "which may be chance; about 4,200 examples would tell",
        ),
        (Role::Success, -0.02, 0.005, Verdict::Inconclusive, "so it is not shown to be better"),
        (guardrail, 0.0, 0.002, Verdict::Pass, "worse by at most 0.00329 with 95 % confidence"),
        (guardrail, 0.02, 0.002, Verdict::Pass, "better by at least 0.01671 with 95 % confidence"),
        (
            guardrail,
            0.0,
            0.01,
            Verdict::Inconclusive,
            "worse by at most 0.01645 with 95 % confidence, 0.005 is allowed",
        ),
        (
            guardrail,
            -0.02,
            0.002,
            Verdict::Fail,
            "worse by at least 0.01671 with 95 % confidence, 0.005 is allowed",
        ),
        (Role::Deterioration, -0.02, 0.002, Verdict::Fail, "worse by 0.02, which is no chance"),
        (Role::Deterioration, -0.001, 0.002, Verdict::Pass, "not shown to be worse"),
    ] {
        let check = statistical(role, None, None);
        let decision = judged(vec![(check, vec![compared(None, 1000, estimate, se)])], Some(champion(0.9)));
        assert_eq!(decision.verdict, verdict, "{role:?} {estimate}: {}", decision.reason);
        let reason = &decision.checks[0].reason;
        assert!(reason.contains(words), "{reason}");
        assert!(reason.starts_with("accuracy 0."), "{reason}");
        assert!(reason.contains("against 0.9 of champion 3 on 1,000 examples: "), "{reason}");
        let tested = decision.checks[0].tested.as_ref().unwrap();
        assert_eq!(tested.difference.as_ref().unwrap().estimate, estimate);
    }
}

#[test]
fn of_several_success_checks_one_is_enough_and_luck_is_not() {
    let success = |by| statistical(Role::Success, by, None);
    let one = |estimate| vec![compared(None, 1000, estimate, 0.005)];
    let decide = |first, second| {
        judged(
            vec![(success(None), one(first)), (success(Some("country")), one(second))],
            Some(champion(0.9)),
        )
    };
    let verdicts =
        |decision: &Decision| decision.checks.iter().map(|check| check.verdict).collect::<Vec<_>>();
    let decision = decide(0.02, 0.0);
    assert_eq!(decision.verdict, Verdict::Pass);
    assert_eq!(verdicts(&decision), [Some(Verdict::Pass), None]);
    assert!(decision.checks[1].reason.ends_with("another success check is enough"), "{decision:?}");
    // p is about 0.036: enough for one check, not for one of two.
    let alone = judged(vec![(success(None), one(0.009))], Some(champion(0.9)));
    assert_eq!(alone.verdict, Verdict::Pass, "{}", alone.reason);
    let decision = decide(0.009, 0.0);
    assert_eq!(verdicts(&decision), [Some(Verdict::Inconclusive); 2]);
    assert!(
        decision.checks[0].reason.contains("after Holm's correction over 2 checks"),
        "{}",
        decision.reason
    );
}

#[test]
fn a_check_holds_in_each_slice_or_not_at_all() {
    let slices =
        |worst: f64| vec![compared(Some("de"), 1000, 0.02, 0.005), compared(Some("fr"), 300, worst, 0.005)];
    let decide = |role, min_examples, worst| {
        judged(vec![(statistical(role, Some("country"), min_examples), slices(worst))], Some(champion(0.9)))
    };
    assert_eq!(decide(Role::Success, None, 0.02).verdict, Verdict::Pass);
    let decision = decide(Role::Success, None, 0.001);
    assert_eq!(decision.verdict, Verdict::Inconclusive, "better in one of two slices is not better in each");
    assert_eq!(decision.checks[0].verdict, Some(Verdict::Inconclusive), "{decision:?}");
    let guardrail = Role::Guardrail { margin: 0.005 };
    assert_eq!(decide(guardrail, None, 0.01).verdict, Verdict::Pass);
    let decision = decide(guardrail, None, -0.1);
    assert_eq!(decision.verdict, Verdict::Fail);
    assert!(decision.reason.contains("accuracy in country=fr 0.8 against 0.9"), "{}", decision.reason);
    let decision = decide(guardrail, Some(500), 0.01);
    assert_eq!(decision.verdict, Verdict::Inconclusive);
    assert_eq!(decision.reason, "accuracy in country=fr: 300 examples are too few, 500 are asked for");
    let decision = decide(Role::Success, Some(500), 0.02);
    assert_eq!(decision.verdict, Verdict::Inconclusive, "a slice that is too small shows nothing");
    let decision = decide(Role::Absolute { min: Some(0.91), max: None }, None, 0.001);
    assert_eq!(decision.reason, "accuracy in country=fr 0.901 is below 0.91");
}

#[test]
fn broken_evidence_is_never_a_pass() {
    let guardrail = || statistical(Role::Guardrail { margin: 0.5 }, None, None);
    let decide = |measured| judged(vec![(guardrail(), measured)], Some(champion(0.9)));
    let one = |found| vec![Measured { slice: None, examples: 2, found }];
    let reason = || "y holds one class only".to_owned();
    for (measured, verdict, words) in [
        (vec![], Verdict::Error, "compare found no examples to measure accuracy on"),
        (one(Measurement::Flawed { reason: reason() }), Verdict::Error, "accuracy: y holds one class only"),
        (
            one(Measurement::TooFew { reason: reason() }),
            Verdict::Inconclusive,
            "accuracy: y holds one class only",
        ),
        (one(Measurement::Alone { candidate: 1.0 }), Verdict::Error, "no predictions of the champion"),
    ] {
        let decision = decide(measured);
        assert_eq!(decision.verdict, verdict);
        assert!(decision.reason.contains(words), "{}", decision.reason);
    }
    let unasked = decide_with(vec![guardrail()], &[], Some(champion(0.9)));
    assert_eq!(unasked.verdict, Verdict::Error);
    assert_eq!(unasked.reason, "no `evaluate` step before the gate has measured accuracy");
    let evaluation = |estimate| Evaluation {
        holdout: None,
        examples: 1000,
        champion: None,
        answers: vec![Answer {
            question: Gate { checks: vec![guardrail()], ..gate(vec![], NoChampion::Absolute) }
                .questions()
                .remove(0),
            measured: vec![compared(None, 1000, estimate, 0.001)],
        }],
    };
    let (one, other) = (evaluation(0.1), evaluation(0.2));
    let two = decide_with(vec![guardrail()], &[("a", &one), ("b", &other)], Some(champion(0.9)));
    assert_eq!(two.verdict, Verdict::Error);
    assert!(two.reason.contains("measured by a and b, which do not agree"), "{}", two.reason);
    let same = decide_with(vec![guardrail()], &[("a", &one), ("b", &one)], Some(champion(0.9)));
    assert_eq!(same.verdict, Verdict::Pass);
}

#[test]
fn the_first_model_is_not_compared() {
    let check = statistical(Role::Success, None, None);
    let decision = judged(vec![(check, vec![compared(None, 1000, 0.1, 0.001)])], None);
    assert_eq!(decision.verdict, Verdict::Inconclusive, "nothing was shown");
    assert_eq!(decision.checks[0].verdict, None);
    let floor = statistical(Role::Absolute { min: Some(0.7), max: None }, Some("country"), None);
    let alone =
        Measured { slice: Some("de".into()), examples: 9, found: Measurement::Alone { candidate: 0.8 } };
    assert_eq!(judged(vec![(floor, vec![alone])], None).verdict, Verdict::Pass);
}
