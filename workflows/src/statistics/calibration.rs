//! Whether the tests err as often as they say and find what the planned sizes promise, by simulation with fixed seeds. 2,000
//! repetitions a claim; with `REFIT_TEST_SOAK` set, 10,000, and `tests/run --bench` shows what came of each.

use rand_core::Rng;
use rand_pcg::Pcg32;

use super::auc::Areas;
use super::mcnemar::Paired;
use super::tests::question;
use super::{Difference, paired, sizes};

const ALPHA: f64 = 0.05;

fn is_long() -> bool {
    std::env::var_os("REFIT_TEST_SOAK").is_some()
}

fn repetitions() -> u32 {
    if is_long() { 10_000 } else { 2_000 }
}

/// A line of the table.
fn show(what: &str, share: f64, claimed: &str) {
    if is_long() {
        println!("  {what:<75} {:>6.2} %   {claimed}", share * 100.0);
    }
}

/// How often `shown` holds for a sample drawn anew each time.
fn share(seed: u64, mut shown: impl FnMut(&mut Pcg32) -> bool) -> f64 {
    let mut generator = Pcg32::new(seed, 1);
    let hits = (0..repetitions()).filter(|_| shown(&mut generator)).count();
    hits as f64 / f64::from(repetitions())
}

/// At most 6 % where 5 % are allowed: two standard errors of 2,000 repetitions more.
#[track_caller]
fn errs_rarely(what: &str, share: f64) {
    show(what, share, "5 % allowed");
    assert!(share <= 0.06, "{what}: in {share} of the samples");
}

#[track_caller]
fn finds(what: &str, share: f64, power: f64) {
    show(what, share, &format!("{:.0} % planned", power * 100.0));
    assert!((share - power).abs() <= 0.03, "{what}: in {share} of the samples, {power} was planned");
}

fn uniform(generator: &mut Pcg32) -> f64 {
    (f64::from(generator.next_u32()) + 0.5) / 2_f64.powi(32)
}

/// A number of examples as planned.
fn examples(planned: f64) -> u64 {
    super::whole(planned)
}

/// Two classifiers on `n` examples: on a share `discordant` of them one is right and the other wrong, and the candidate is right on
/// `difference` more of all.
fn classifiers(generator: &mut Pcg32, n: u64, discordant: f64, difference: f64) -> Paired {
    let (candidate, either) = (f64::midpoint(discordant, difference), discordant);
    let (mut candidate_only, mut champion_only) = (0, 0);
    for _ in 0..n {
        let place = uniform(generator);
        candidate_only += u64::from(place < candidate);
        champion_only += u64::from(place >= candidate && place < either);
    }
    Paired::new(n, candidate_only, champion_only).unwrap()
}

fn accuracy(seed: u64, n: u64, truth: (f64, f64), margin: f64, p: fn(&Difference) -> f64) -> f64 {
    share(seed, |generator| {
        let sample = classifiers(generator, n, truth.0, truth.1);
        p(&paired::difference(&sample, &question(margin, ALPHA)).unwrap()) < ALPHA
    })
}

#[test]
fn an_accuracy_that_is_not_better_is_rarely_called_better() {
    for (seed, n, discordant) in [(1, 200, 0.3), (2, 600, 0.1), (3, 150, 0.08)] {
        let found = accuracy(seed, n, (discordant, 0.0), 0.0, |found| found.p_better);
        errs_rarely(
            &format!("accuracy, no better, called better: {n} examples, {discordant} discordant"),
            found,
        );
        assert!(found > 0.025, "{found}: a test that never says yes is no test");
    }
}

#[test]
fn an_accuracy_worse_by_the_margin_rarely_passes() {
    for (seed, n, discordant) in [(4, 300, 0.2), (5, 600, 0.08)] {
        let found = accuracy(seed, n, (discordant, -0.05), 0.05, |found| found.p_margin);
        let what = format!("accuracy, worse by the margin, passed: {n} examples, {discordant} discordant");
        errs_rarely(&what, found);
    }
}

#[test]
fn an_accuracy_is_found_better_as_often_as_planned() {
    for (seed, discordant, difference, power) in [(6, 0.15, 0.05, 0.8), (7, 0.2, 0.08, 0.6)] {
        let n = examples(sizes::paired_superiority(discordant, difference, ALPHA, power).unwrap());
        let found = accuracy(seed, n, (discordant, difference), 0.0, |found| found.p_better);
        finds(&format!("accuracy, better by {difference}, found: {n} examples"), found, power);
    }
    let n = examples(sizes::paired_non_inferiority(0.15, 0.0, 0.05, ALPHA, 0.8).unwrap());
    let found = accuracy(8, n, (0.15, 0.0), 0.05, |found| found.p_margin);
    finds(&format!("accuracy, no difference, within a margin of 0.05: {n} examples"), found, 0.8);
}

/// Two scorers on `n` examples of each class. Negatives score from 0 to 1 evenly, positives by their shift more, so that the area is
/// 1 − (1 − shift)²/2 exactly; three in five examples have the same noise for both models.
fn scorers(generator: &mut Pcg32, n: u64, candidate: f64, champion: f64) -> Areas {
    let (mut positive, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..2 * n {
        let is = row % 2 == 0;
        let noise = uniform(generator);
        let other = if uniform(generator) < 0.6 { noise } else { uniform(generator) };
        positive.push(is);
        ours.push(noise + if is { candidate } else { 0.0 });
        theirs.push(other + if is { champion } else { 0.0 });
    }
    Areas::of(&positive, &ours, &theirs).unwrap()
}

fn area(shift: f64) -> f64 {
    1.0 - (1.0 - shift).powi(2) / 2.0
}

/// The shift with this area.
fn shift(area: f64) -> f64 {
    1.0 - (2.0 * (1.0 - area)).sqrt()
}

fn areas(seed: u64, n: u64, shifts: (f64, f64), margin: f64, p: fn(&Difference) -> f64) -> f64 {
    share(seed, |generator| {
        let sample = scorers(generator, n, shifts.0, shifts.1);
        p(&sample.difference(&question(margin, ALPHA)).unwrap()) < ALPHA
    })
}

#[test]
fn an_area_that_is_not_better_is_rarely_called_better() {
    let found = areas(9, 50, (0.4, 0.4), 0.0, |found| found.p_better);
    errs_rarely("ROC AUC, no better, called better: 50 examples of each class", found);
    assert!(found > 0.025, "{found}: a test that never says yes is no test");
}

#[test]
fn an_area_worse_by_the_margin_rarely_passes() {
    let champion = 0.4;
    let candidate = shift(area(champion) - 0.04);
    errs_rarely(
        "ROC AUC, worse by the margin, passed: 50 examples of each class",
        areas(10, 50, (candidate, champion), 0.04, |found| found.p_margin),
    );
}

#[test]
fn an_area_is_found_better_as_often_as_planned() {
    for (seed, candidate, power) in [(11, 0.52, 0.8), (12, 0.55, 0.6)] {
        let champion = 0.3;
        let pilot = scorers(&mut Pcg32::new(seed, 2), 10_000, candidate, champion);
        let distance = area(candidate) - area(champion);
        let n = examples(sizes::from_error(10_000, pilot.se(), distance, ALPHA, power).unwrap());
        let found = areas(seed, n, (candidate, champion), 0.0, |found| found.p_better);
        finds(&format!("ROC AUC, better by {distance:.3}, found: {n} examples of each class"), found, power);
    }
}
