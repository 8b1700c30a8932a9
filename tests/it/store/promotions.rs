//! Promotions that race, over two orchestrators where the database allows it: every move of an alias rests on a gate that
//! passed against the very version it replaces, and none is lost or made twice.

use refit_tests::soak;

use super::*;

on_both_databases! {
    racing_promotions_make_one_chain
}

/// Whatever the champion is, a candidate passes, and its gate has looked at that champion.
const RACE: &str = "
workflow: race
model: m
concurrency: { on_conflict: parallel }
steps:
  train: { run: [x], artifacts: { model: m } }
  gate:
    needs: [train]
    gate: { checks: [{ metric: accuracy, min: 0.5 }, { metric: accuracy, min_change: -1 }] }
  promote: { needs: [gate], promote: { artifact: '${{ steps.train.artifacts.model }}' } }
";

async fn racing_promotions_make_one_chain(database: Database) {
    let races: i64 = if soak() { 200 } else { 20 };
    let one = House::started(&database).await;
    let two = if database.kind() == "postgres" { Some(House::started(&database).await) } else { None };
    let two = two.as_ref().unwrap_or(&one);
    one.apply(RACE).await;
    one.register("w", "s").await;
    for _ in 0..races {
        one.start_run("race").await;
    }
    let mut orders = Vec::new();
    while (orders.len() as i64) < races {
        orders.extend(one.lease("w", "s", 50, 10_000).await);
    }
    let reports = orders.iter().zip([&one, two].into_iter().cycle()).map(|(order, house)| {
        let (engine, key) = (house.engine.clone(), order.key.clone());
        let outcome = succeeded_with(0.5 + key.run.number as f64 / 1000.0);
        tokio::spawn(async move { engine.finish(Finish::of(key, outcome)).await.unwrap() })
    });
    for report in reports.collect::<Vec<_>>() {
        report.await.unwrap();
    }

    let history = one.engine.history("m").await.unwrap();
    let moves: Vec<_> = history.iter().rev().map(|entry| (entry.from, entry.to)).collect();
    let expected: Vec<_> = (1..=races).map(|to| ((to > 1).then_some(to - 1), to)).collect();
    assert_eq!(moves, expected, "each replaced the one before it");
    let model = one.engine.model("m").await.unwrap();
    assert_eq!((model.versions.len() as i64, model.aliases["champion"]), (races, races));
    let mut judged_again = 0;
    for entry in &history {
        let run = entry.run.clone().unwrap();
        assert_eq!(one.run(&run.to_string()).await.promoted.unwrap().version, entry.to);
        let evidence = one.engine.evidence(&run).await.unwrap();
        assert_eq!(Some(&evidence.digest), entry.evidence.as_ref());
        let record = evidence.record;
        assert_eq!((record.champion, record.version, &record.run), (entry.from, entry.to, &run));
        let [decision] = record.gates.values().collect::<Vec<_>>()[..] else { panic!("{run} had no gate") };
        assert_eq!((decision.verdict, decision.champion), (refit_workflows::gate::Verdict::Pass, entry.from));
        // The number it was compared with is that of the version it replaced.
        let version = |number| model.versions.iter().find(|version| version.version == number).unwrap();
        let before = entry.from.map(|from| version(from).metrics["accuracy"]);
        assert_eq!(decision.checks[1].champion, before);
        assert_replays(two, &run).await;
        let journal = one.engine.store().journal(&run).await.unwrap();
        judged_again +=
            journal.iter().filter(|(_, input)| matches!(input, Input::ChampionMoved { .. })).count();
    }
    assert!(judged_again > 0, "no two of them met");
    let kind = Some("refit.model.promoted".to_owned());
    let told =
        one.engine.events(EventFilter { kind, data: true, limit: 1000, ..Default::default() }).await.unwrap();
    let mut told: Vec<i64> =
        told.iter().map(|event| event.data.as_ref().unwrap()["version"].as_i64().unwrap()).collect();
    told.sort_unstable();
    assert_eq!(told, (1..=races).collect::<Vec<_>>());
    println!("{}: {races} promotions, {judged_again} gates were decided again", database.kind());
}
