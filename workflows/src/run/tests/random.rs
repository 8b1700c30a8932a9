//! Random graphs with random inputs: invariants, replay, and that every run ends.

use proptest::prelude::*;

use super::*;

/// What is random about one step.
#[derive(Clone, Debug)]
struct Shape {
    needs: Vec<prop::sample::Index>,
    kind: u8,
    attempts: u32,
    matrix: u8,
    window: Option<u32>,
    share: f64,
    finally: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    let needs = prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    let rest = (0u8..8, 1u32..3, 0u8..5, prop::option::of(1u32..3), 0.01f64..=1.0, prop::bool::weighted(0.2));
    (needs, rest).prop_map(|(needs, (kind, attempts, matrix, window, share, finally))| Shape {
        needs,
        kind,
        attempts,
        matrix,
        window,
        share,
        finally,
    })
}

/// A random graph: each step needs some of those before it; some have conditions, some a matrix, some run a workflow,
/// some choose from a matrix, the last ones may be `finally`.
fn graphs() -> impl Strategy<Value = Arc<Workflow>> {
    prop::collection::vec(shape(), 1..9).prop_map(|shapes| {
        let own = shapes.iter().rposition(|shape| !shape.finally).map_or(1, |last| last + 1);
        let mut text = "workflow: random\nmodel: m\nsteps:\n".to_owned();
        for (index, shape) in shapes.iter().enumerate() {
            text.push_str(&format!("  s{index}: {{ {} }}\n", step_text(index, shape, own)));
        }
        changed(&text, |workflow| {
            for (index, shape) in shapes.iter().enumerate() {
                enrich(workflow, index, shape, own);
            }
        })
    })
}

fn step_text(index: usize, shape: &Shape, own: usize) -> String {
    let from = if index >= own { own } else { 0 };
    let mut needs: Vec<usize> = Vec::new();
    if index > from {
        needs = shape.needs.iter().map(|need| from + need.index(index - from)).collect();
    }
    needs.sort_unstable();
    needs.dedup();
    // A gate must come after something that can report a metric.
    let kind = if index == 0 || index >= own { shape.kind.max(4) } else { shape.kind };
    if kind == 0 {
        needs = vec![0];
    }
    let needs: Vec<String> = needs.into_iter().map(|need| format!("s{need}")).collect();
    let needs = if needs.is_empty() { String::new() } else { format!("needs: [{}], ", needs.join(", ")) };
    let rest = match kind {
        0 => "gate: { checks: [{ metric: accuracy, min: 0.5 }] }".to_owned(),
        1 => "approval: { timeout: 1h }".to_owned(),
        2 => "if: always(), run: [x]".to_owned(),
        3 => "if: failed(), run: [x]".to_owned(),
        _ => format!("run: [x], retry: {{ attempts: {}, backoff: 1s }}", shape.attempts),
    };
    format!("{needs}{rest}")
}

/// What no file can say yet.
fn enrich(workflow: &mut Workflow, index: usize, shape: &Shape, own: usize) {
    let step = &mut workflow.steps[index];
    step.finally = index >= own;
    if step.verb.work().is_none() {
        return;
    }
    let needs = step.needs.clone();
    let matrix = match (shape.matrix, needs.first()) {
        (0, _) => Some(axis("depth", json!([4, 8, 12]))),
        (1, Some(need)) => Some(dynamic(&format!("${{{{ steps.s{need}.outputs.list }}}}"))),
        (2, _) => Some(dynamic("${{ [{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'y'}] }}")),
        _ => None,
    };
    step.matrix =
        matrix.map(|matrix| Matrix { max_parallel: shape.window, min_success: shape.share, ..matrix });
    if shape.kind == 6 {
        step.verb = Verb::Workflow(ChildRun { name: "child".to_owned(), params: BTreeMap::new() });
    }
    let from = needs.into_iter().find(|&need| workflow.steps[need].matrix.is_some());
    if let Some(from) = from.filter(|_| shape.kind == 7) {
        workflow.steps[index].matrix = None;
        workflow.steps[index].verb = select(from, "metrics.accuracy");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn random_graphs_hold_the_invariants_and_replay_to_the_same_run(
        workflow in graphs(),
        choices in prop::collection::vec((any::<prop::sample::Index>(), 0u64..4000), 0..120),
    ) {
        let mut run = new_run(&workflow);
        let (mut journal, mut names, mut asked) = (Vec::new(), Vec::new(), std::collections::BTreeSet::new());
        let mut at = NOW;
        for (choice, pass) in choices {
            at = at.plus(Duration::from_millis(pass));
            let inputs = all_inputs(&run);
            let input = &inputs[choice.index(inputs.len())];
            let before = image(&run);
            match run.apply(input, at) {
                Ok(effects) => {
                    for effect in effects {
                        match effect {
                            Effect::StartRun(order) => {
                                prop_assert!(asked.insert((order.step, order.epoch)), "C2: asked twice");
                            }
                            Effect::CancelRun { step, epoch } => prop_assert!(asked.contains(&(step, epoch))),
                            Effect::Promote(_) => prop_assert!(false, "nothing promotes here"),
                            Effect::Emit(_)
                            | Effect::Judged { .. }
                            | Effect::Recall { .. }
                            | Effect::Remember { .. } => {}
                        }
                    }
                    journal.push((input.clone(), at));
                    check_invariants(&run);
                    let now: Vec<String> = (0..run.steps.len()).map(|place| run.step_name(place).to_owned()).collect();
                    prop_assert_eq!(&now[..names.len()], &names[..], "G7: a place keeps its name");
                    names = now;
                }
                Err(_) => prop_assert_eq!(image(&run), before),
            }
        }
        let mut replayed = new_run(&workflow);
        for (input, at) in &journal {
            replayed.apply(input, *at).unwrap();
        }
        prop_assert_eq!(image(&replayed), image(&run), "R5: the journal gives the run");
        let restored = Run::restore(
            Arc::clone(&workflow), Arc::clone(&run.facts), run.head.clone(),
            run.steps.iter().map(|step| (**step).clone()).collect(), run.version,
        );
        prop_assert_eq!(&restored.unsettled_needs, &run.unsettled_needs, "what is derived survives loading");
        prop_assert_eq!(&restored.timers, &run.timers);
        prop_assert_eq!(&restored.ready, &run.ready);
        prop_assert_eq!(restored.unsettled_before_finally, run.unsettled_before_finally);
        let stored: Vec<Step> = run.steps.iter().map(|step| Step::clone(step)).collect();
        prop_assert!(Run::fits(&workflow, &stored));
        let written = serde_json::to_string(&stored).unwrap();
        prop_assert_eq!(serde_json::from_str::<Vec<Step>>(&written).unwrap(), stored, "what is kept is read again");
    }

    #[test]
    fn once_nothing_goes_wrong_any_more_every_run_ends(
        workflow in graphs(),
        choices in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let mut run = new_run(&workflow);
        let mut at = NOW;
        for choice in choices {
            at = at.plus(Duration::from_secs(1));
            let inputs = all_inputs(&run);
            let _ = run.apply(&inputs[choice.index(inputs.len())], at);
        }
        for _ in 0..1000 {
            at = at.plus(Duration::from_secs(7200));
            if matches!(run.head.state, RunState::Over { .. }) {
                break;
            }
            let _ = run.apply(&Input::Admitted { champion: None }, at);
            let _ = run.apply(&Input::Ticked, at);
            for step in 0..run.steps.len() {
                let _ = run.apply(&Input::Leased { step, worker: "w".to_owned(), session: "s".to_owned() }, at);
                let epoch = run.steps[step].epoch;
                let (child, outputs) = (RunName::new("child", 1), BTreeMap::new());
                let _ = run.apply(&Input::ChildEnded { step, epoch, run: child, ending: Ending::Succeeded, outputs }, at);
                let _ = run.apply(&Input::Finished { step, epoch, outcome: success(0.9), set_up_ms: None }, at);
            }
        }
        prop_assert!(matches!(run.head.state, RunState::Over { .. }), "stuck: {}", image(&run));
    }
}
