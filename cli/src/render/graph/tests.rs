//! Drawings as they look, and a reader that follows the rails of any drawing back to the graph.

use proptest::prelude::*;

use super::*;
use crate::render::{plain, run::example};

/// A graph of `name needs…` lines; `gate` and the like have their name as verb.
fn graph(lines: &[&str]) -> Graph {
    let names: Vec<&str> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
    let steps = lines.iter().map(|line| {
        let mut words = line.split(' ');
        let name = words.next().unwrap().to_owned();
        let needs = words.map(|need| names.iter().position(|name| *name == need).unwrap()).collect();
        let verb = if name == "gate" { "gate" } else { "run" }.to_owned();
        Node { name, verb, needs, ..Node::default() }
    });
    Graph { name: "churn".to_owned(), steps: steps.collect() }
}

fn text(graph: &Graph) -> String {
    plain(&graph.draw(GraphForm::Text, None))
}

fn assert_drawn(lines: &[&str], expected: &str) {
    let text: String = text(&graph(lines))
        .lines()
        .map(|line| format!("{}\n", line.trim_end_matches("run").trim_end()))
        .collect();
    assert_eq!(text, expected, "\n{text}");
}

#[test]
fn a_chain_goes_straight_down() {
    assert_drawn(
        &["load", "train load", "gate train", "promote gate"],
        "\
●  load
●  train
●  gate     gate
●  promote
",
    );
}

#[test]
fn a_diamond_opens_and_closes() {
    assert_drawn(
        &["a", "b a", "c a", "d b c", "e d"],
        "\
●      a
├─●─╮  b
╰─●─┤  c
●───╯  d
●      e
",
    );
}

#[test]
fn two_roots_meet() {
    assert_drawn(
        &["a", "a2 a", "b", "b2 b", "join a2 b2"],
        "\
●    a
●    a2
│ ●  b
│ ●  b2
●─╯  join
",
    );
}

#[test]
fn what_has_nothing_to_do_with_each_other_stands_apart() {
    assert_drawn(
        &["a", "b", "c", "d c"],
        "\
●    a
  ●  b
●    c
●    d
",
    );
}

#[test]
fn branches_keep_their_chains() {
    assert_drawn(
        &["a", "b a", "b2 b", "c a", "c2 c", "d a", "d2 d", "e b2 c2 d2"],
        "\
●      a
├─●    b
│ ●─╮  b2
├─● │  c
│ ●─┤  c2
╰─● │  d
  ●─┤  d2
●───╯  e
",
    );
}

#[test]
fn fans_of_any_width_take_three_columns() {
    let middle: Vec<String> = (0..10).map(|n| format!("t{n} data")).collect();
    let all = (0..10).map(|n| format!(" t{n}")).collect::<String>();
    let best = format!("best{all}");
    let lines: Vec<&str> =
        std::iter::once("data").chain(middle.iter().map(String::as_str)).chain([best.as_str()]).collect();
    assert_drawn(
        &lines,
        "\
●      data
├─●─╮  t0
├─●─┤  t1
├─●─┤  t2
├─●─┤  t3
├─●─┤  t4
├─●─┤  t5
├─●─┤  t6
├─●─┤  t7
├─●─┤  t8
╰─●─┤  t9
●───╯  best
",
    );
}

#[test]
fn the_file_s_order_is_kept_where_the_graph_allows_it() {
    assert_drawn(
        &["late middle", "first", "middle first", "last first"],
        "\
●    first
├─●  middle
│ ●  late
╰─●  last
",
    );
}

fn retraining() -> Graph {
    let mut graph = graph(&[
        "validate",
        "train[depth=4] validate",
        "train[depth=8] validate",
        "train[depth=12] validate",
        "best train[depth=4] train[depth=8] train[depth=12]",
        "evaluate best",
        "compare evaluate",
        "gate compare",
        "approve gate",
        "promote gate approve",
        "announce promote",
        "report",
    ]);
    for step in &mut graph.steps {
        step.verb = match step.name.as_str() {
            "best" => "select",
            "approve" => "approval",
            "compare" => "evaluate",
            "announce" => "call",
            "report" => "emit",
            name @ ("validate" | "gate" | "promote") => name,
            _ => "run",
        }
        .to_owned();
    }
    graph.steps[11].finally = true;
    graph
}

#[test]
fn a_whole_retraining_with_its_states() {
    let mut graph = retraining();
    for (place, step) in graph.steps.iter_mut().enumerate() {
        let (state, note) = match place {
            0 => ("succeeded", "4.2s"),
            1 => ("succeeded", "2m 10s  auc 0.91"),
            2 => ("succeeded", "3m 40s  auc 0.93"),
            3 => ("failed", "40m 2s  exit code 137"),
            4 => ("running", "1.0s"),
            _ => ("blocked", ""),
        };
        (step.state, step.note) = (Some(state.to_owned()), note.to_owned());
    }
    let drawn = text(&graph);
    assert_eq!(
        drawn,
        "\
●      validate         validate       ✓ succeeded  4.2s
├─●─╮  train[depth=4]   run            ✓ succeeded  2m 10s  auc 0.91
├─●─┤  train[depth=8]   run            ✓ succeeded  3m 40s  auc 0.93
╰─●─┤  train[depth=12]  run            ✗ failed     40m 2s  exit code 137
●───╯  best             select         ● running    1.0s
●      evaluate         run            · blocked
●      compare          evaluate       · blocked
●      gate             gate           · blocked
●      approve          approval       · blocked
●      promote          promote        · blocked
●      announce         call           · blocked
  ●    report           emit, finally  · blocked
",
        "\n{drawn}"
    );
    let narrow = plain(&graph.draw(GraphForm::Text, Some(60)));
    assert!(narrow.lines().all(|line| console::measure_text_width(line) <= 60), "{narrow}");
    assert!(narrow.contains("2m 10s …"), "{narrow}");
}

#[test]
fn a_run_is_drawn_from_what_the_api_shows() {
    let now = Timestamp::parse("2027-01-15T08:03:00Z").unwrap();
    let mut run = example();
    let drawn = text(&Graph::of_run(&run, now));
    assert_eq!(
        drawn,
        "\
●  train    run      ✓ succeeded  20.0s  accuracy 0.8125
●  gate     gate     ✗ rejected   fail: accuracy fell
●  promote  promote  – skipped    `gate` was rejected
",
        "\n{drawn}"
    );
    // What a need stands for may be the instances of a matrix; a name that says nothing is no reason not to draw.
    let steps = run.steps.as_mut().unwrap();
    steps.insert(0, steps[0].clone());
    steps[0].step = "train[depth=4]".to_owned();
    steps[1].step = "train[depth=8]".to_owned();
    steps[3].needs.push("unheard-of".to_owned());
    let needs: Vec<Vec<usize>> = Graph::of_run(&run, now).steps.into_iter().map(|step| step.needs).collect();
    assert_eq!(needs, [vec![], vec![], vec![0, 1], vec![2]]);
}

#[test]
fn marks_have_the_colour_of_their_state() {
    let drawn = Graph::of_run(&example(), Timestamp::default()).draw(GraphForm::Text, None);
    let marks: Vec<&str> = drawn.lines().filter_map(|line| line.split("  ").next()).collect();
    for (mark, state) in marks.iter().zip(["succeeded", "rejected", "skipped"]) {
        assert_eq!(*mark, crate::render::paint(crate::render::state_look(state).1, "●"));
    }
}

#[test]
fn a_graph_too_wide_for_rails_is_a_list() {
    // Each of twenty needs two of twenty, so that no rail can be shared.
    let lines: Vec<String> = (0..20)
        .map(|n| format!("a{n}"))
        .chain((0..20).map(|n| format!("b{n} a{n} a{}", (n + 7) % 20)))
        .collect();
    let drawn = text(&graph(&lines.iter().map(String::as_str).collect::<Vec<_>>()));
    assert_eq!(drawn.lines().count(), 40);
    assert_eq!(drawn.lines().next(), Some("●  a0   run"));
    assert_eq!(drawn.lines().last(), Some("●  b19  run  needs: a6, a19"));
}

#[test]
fn a_circle_from_elsewhere_is_told_and_not_drawn() {
    let drawn = text(&graph(&["a b", "b a", "c"]));
    assert_eq!(drawn, "●  a  run  needs: b\n●  b  run  needs: a\n●  c  run\n");
}

#[test]
fn thousands_of_steps_are_no_danger() {
    let chain = |needs: fn(usize) -> Vec<usize>| {
        let steps = (0..10_000).map(|n| Node { name: format!("s{n}"), needs: needs(n), ..Node::default() });
        Graph { name: "big".to_owned(), steps: steps.collect() }
    };
    let long = text(&chain(|n| n.checked_sub(1).into_iter().collect()));
    assert!(long.lines().all(|line| line.starts_with("●  s")), "a chain of 10,000 is not straight");
    let wide = text(&chain(|n| match n {
        0 => vec![],
        9_999 => (1..9_999).collect(),
        _ => vec![0],
    }));
    assert_eq!(wide.lines().filter(|line| line.starts_with("├─●─┤  s")).count(), 9_996);
}

#[test]
fn names_cannot_break_out() {
    let mut graph = graph(&["a", "b a"]);
    graph.steps[0].name = "x\"]; end <b>`#1\\\u{1b}[2J".to_owned();
    for form in [GraphForm::Text, GraphForm::Mermaid, GraphForm::Dot] {
        assert!(!plain(&graph.draw(form, None)).contains('\u{1b}'));
    }
    let mermaid = graph.draw(GraphForm::Mermaid, None);
    assert!(
        mermaid.contains("    s0[\"x#34;]#59; end #60;b#62;#96;#35;1#92;#92;u#123;1b#125;[2J<br/>run\"]\n"),
        "{mermaid}"
    );
    let dot = graph.draw(GraphForm::Dot, None);
    assert!(dot.contains(r#"    "x\"]; end <b>`#1\\\\u{1b}[2J" -> "b";"#), "{dot}");
}

#[test]
fn mermaid_holds_every_edge_and_state() {
    let mut graph = retraining();
    for step in &mut graph.steps[..2] {
        step.state = Some("succeeded".to_owned());
    }
    graph.steps[2].state = Some("hibernating".to_owned());
    let drawn = graph.draw(GraphForm::Mermaid, None);
    assert_eq!(
        drawn,
        "\
flowchart TD
    s0[\"validate<br/>validate, succeeded\"]:::succeeded
    s1[\"train[depth=4]<br/>run, succeeded\"]:::succeeded
    s2[\"train[depth=8]<br/>run, hibernating\"]
    s3[\"train[depth=12]<br/>run\"]
    s4[\"best<br/>select\"]
    s5[\"evaluate<br/>run\"]
    s6[\"compare<br/>evaluate\"]
    s7{{\"gate<br/>gate\"}}
    s8{{\"approve<br/>approval\"}}
    s9[\"promote<br/>promote\"]
    s10[\"announce<br/>call\"]
    subgraph after[\"finally\"]
        s11[\"report<br/>emit\"]
    end
    s0 --> s1
    s0 --> s2
    s0 --> s3
    s1 --> s4
    s2 --> s4
    s3 --> s4
    s4 --> s5
    s5 --> s6
    s6 --> s7
    s7 --> s8
    s7 --> s9
    s8 --> s9
    s9 --> s10
    s10 -.-> s11
    classDef succeeded fill:#dafbe1,stroke:#1a7f37,color:#044f1e
",
        "\n{drawn}"
    );
}

#[test]
fn dot_holds_every_edge_and_state() {
    let mut graph = graph(&["a[n=1]", "gate a[n=1]", "c a[n=1] gate", "report"]);
    graph.steps[0].state = Some("failed".to_owned());
    graph.steps[3].finally = true;
    let drawn = graph.draw(GraphForm::Dot, None);
    assert_eq!(
        drawn,
        r##"digraph "churn" {
    node [shape=box, style="rounded,filled", fillcolor=white, fontname="sans-serif"];
    "a[n=1]" [label="a[n=1]\nrun, failed", fillcolor="#ffcecb"];
    "gate" [label="gate\ngate", shape=hexagon];
    "c" [label="c\nrun"];
    subgraph "cluster_finally" {
        label="finally";
        "report" [label="report\nrun"];
    }
    "a[n=1]" -> "gate";
    "a[n=1]" -> "c";
    "gate" -> "c";
    "c" -> "report" [style=dotted];
}
"##,
        "\n{drawn}"
    );
}

// ---------------------------------------------------------------------------------------------------------------
// Reading drawings back

/// Whether a rail goes up and down from this character.
fn up_down(c: char) -> (bool, bool) {
    ("│├┤┼╰╯┴".contains(c), "│├┤┼╮╭┬".contains(c))
}

/// Follows the rails of a drawing by the rules in `rails`: for each line, the lines it needs.
fn read(lines: &[Vec<char>]) -> Vec<Vec<usize>> {
    let columns = lines.first().map_or(0, |line| line.len().div_ceil(2));
    // What feeds the rail in each column.
    let mut rails: Vec<Vec<usize>> = vec![Vec::new(); columns];
    let mut read = Vec::new();
    // The mark of the line above, when it may lead straight down to another mark.
    let mut hanging: Option<usize> = None;
    for (at, line) in lines.iter().enumerate() {
        let marks: Vec<usize> = (0..columns).filter(|column| line[2 * column] == '●').collect();
        let [mark] = marks[..] else { panic!("line {at} has marks in {marks:?}") };
        let gap = |between: usize| line.get(2 * between + 1) == Some(&'─');
        let met = |column: &usize| !"│─".contains(line[2 * column]);
        let left: Vec<usize> = (0..mark).rev().take_while(|&column| gap(column)).filter(met).collect();
        let right: Vec<usize> =
            (mark + 1..columns).take_while(|&column| gap(column - 1)).filter(met).collect();

        if let Some(column) = hanging {
            let leads_on = if column == mark { left.is_empty() } else { up_down(line[2 * column]).0 };
            if !leads_on {
                rails[column].clear();
            }
        }
        let mut needs = std::mem::take(&mut rails[mark]);
        let mut feeds_right = false;
        for column in (0..columns).filter(|&column| column != mark) {
            let (up, down) = up_down(line[2 * column]);
            assert_eq!(up, !rails[column].is_empty(), "a rail is torn above line {at}, column {column}");
            let (is_left, is_right) = (left.contains(&column), right.contains(&column));
            assert!(
                is_left || is_right || up == down,
                "a rail ends at nothing in line {at}, column {column}"
            );
            if up && (is_left || !down) {
                needs.extend(&rails[column]);
            }
            if up && !down {
                rails[column].clear();
            }
            if down && (is_right || is_left && !up) {
                rails[column].push(at);
                feeds_right |= is_right;
            }
        }
        rails[mark] = if feeds_right { Vec::new() } else { vec![at] };
        hanging = (!feeds_right).then_some(mark);
        needs.sort_unstable();
        read.push(needs);
    }
    read
}

/// The transitive reduction, found by walking.
fn reduction(needs: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let reaches = |from: usize, to: usize| {
        let mut open = needs[from].clone();
        while let Some(step) = open.pop() {
            if step == to {
                return true;
            }
            open.extend(&needs[step]);
        }
        false
    };
    let direct = |needs: &Vec<usize>| {
        let mut direct: Vec<usize> = needs.clone();
        direct.sort_unstable();
        direct.dedup();
        let all = direct.clone();
        direct.retain(|&need| !all.iter().any(|&other| reaches(other, need)));
        direct
    };
    needs.iter().map(direct).collect()
}

/// A graph without circles, in any order of the file.
fn any_graph() -> impl Strategy<Value = Graph> {
    let shape = (1_usize..22, 0_usize..4).prop_flat_map(|(steps, density)| {
        let edges = proptest::collection::vec((0..steps, 0..steps), 0..=steps * density);
        let order = Just((0..steps).collect::<Vec<_>>()).prop_shuffle();
        let keep_order = any::<bool>();
        (edges, order, keep_order)
    });
    shape.prop_map(|(edges, order, keep_order)| {
        let place = |step: usize| if keep_order { step } else { order[step] };
        let mut steps: Vec<Node> = (0..order.len())
            .map(|step| Node { name: format!("s{step}"), verb: "run".to_owned(), ..Node::default() })
            .collect();
        for (a, b) in edges {
            if a != b {
                steps[place(a.max(b))].needs.push(place(a.min(b)));
            }
        }
        Graph { name: "any".to_owned(), steps }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_rails_lead_back_to_the_graph(graph in any_graph()) {
        let text = text(&graph);
        let lines: Vec<(Vec<char>, &str, Option<&str>)> = text.lines().map(|line| {
            let (rails, told) = line.split_at(line.find('s').unwrap());
            let mut words = told.split("  ").filter(|word| !word.is_empty());
            let rails = rails.strip_suffix("  ").unwrap().chars().collect();
            (rails, words.next().unwrap().trim(), words.last().and_then(|word| word.strip_prefix("needs: ")))
        }).collect();
        prop_assert_eq!(lines.len(), graph.steps.len());
        let order: Vec<usize> = lines.iter().map(|(_, name, _)| name[1..].parse().unwrap()).collect();
        let line_of = |place: usize| order.iter().position(|&other| other == place).unwrap();
        let needs: Vec<Vec<usize>> = order.iter()
            .map(|&place| graph.steps[place].needs.iter().map(|&need| line_of(need)).collect())
            .collect();
        for (at, needs) in needs.iter().enumerate() {
            prop_assert!(needs.iter().all(|&need| need < at), "{text}");
        }
        let drawn: Vec<Vec<usize>> = if text.contains("needs: ") {
            lines.iter().map(|(_, _, told)| {
                let names = told.iter().flat_map(|told| told.split(", "));
                names.map(|name| line_of(name[1..].parse().unwrap())).collect()
            }).collect()
        } else {
            prop_assert!(lines.iter().all(|(rails, ..)| rails.len() < 2 * rails::RAILS_MAX), "{text}");
            let rails: Vec<Vec<char>> = lines.iter().map(|(rails, ..)| rails.clone()).collect();
            read(&rails)
        };
        prop_assert_eq!(drawn, reduction(&needs), "\n{}", text);
    }

    #[test]
    fn a_file_in_order_keeps_it(graph in any_graph()) {
        let sound = graph.steps.iter().enumerate().all(|(at, step)| step.needs.iter().all(|&need| need < at));
        prop_assume!(sound);
        prop_assert_eq!(graph.order(), Some((0..graph.steps.len()).collect::<Vec<_>>()));
    }
}
