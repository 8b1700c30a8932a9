//! What is refused of verbs: `gate`, `approval`, `promote`, `emit`, `call`, `workflow`, `validate`, `evaluate`.

use super::{Broken, assert_broken};

const BROKEN: Broken = &[
    // gate, approval, promote, emit
    (
        "W\nsteps: { a: { run: [a] }, g: { needs: [a], gate: { alpha: 0.05, checks: [{ metric: m, role: success }, { metric: m, min_change: 0 }] } } }\n",
        &["2:74 missing-key", "2:74 missing-evidence"],
    ),
    (
        "W\nsteps: { a: { approval: { from: leads, timeout: 40d, on_timeout: maybe } } }\n",
        &["2:33 wrong-type", "2:49 duration", "2:66 value"],
    ),
    (
        "W\nmodel: m\nsteps: { a: { run: [a], artifacts: { m: m } }, p: { needs: [a], promote: { artifact: '${{ steps.a.artifacts.m }}' } } }\n",
        &["3:48 ungated-promotion"],
    ),
    (
        "W\nsteps: { a: { run: [a], artifacts: { m: m } }, g: { needs: [a], gate: { checks: [{ metric: x, min: 0 }] } }, p: { needs: [g], promote: { artifact: '${{ steps.a.artifacts.m }}', alias: A B } } }\n",
        &["2:127 missing-key", "2:185 name"],
    ),
    // roles of checks
    (
        "W\nmodel: m\nsteps: { e: { evaluate: { predictions: p.csv, label: y, metrics: [recall] } }, g: { needs: [e], gate: { checks: [{ metric: recall, role: guardrail }, { metric: recall, role: success, margin: 1 }, { metric: recall, by: c }, { metric: recall, margin: 1, min: 0 }, { metric: recall, role: absolute, min: 1, min_examples: 5 }, { metric: log_loss, role: deterioration, direction: higher }, { metric: recall, role: guardrail, margin: -1 }] } } }\n",
        &[
            "3:114 missing-key",
            "3:184 misplaced-key",
            "3:197 missing-key",
            "3:242 misplaced-key",
            "3:305 misplaced-key",
            "3:376 value",
            "3:429 number",
        ],
    ),
    (
        "W\nsteps: { a: { run: [a] }, g: { needs: [a], gate: { alpha: 0.05, checks: [{ metric: x, min: 0 }] } } }\n",
        &["2:52 misplaced-key"],
    ),
    (
        "W\nsteps: { e: { evaluate: { predictions: p.csv, label: y, metrics: [recall], by: [c] } }, g: { needs: [e], gate: { alpha: 5, inconclusive: approval, checks: [{ metric: recall, by: c, min: 0.5 }] } } }\n",
        &["2:121 number", "2:124 missing-approval"],
    ),
    // what nobody can measure; a metric that is not listed but known is counted all the same
    (
        "W\nmodel: m\nsteps: { e: { evaluate: { predictions: p.csv, label: y, metrics: [recall] } }, g: { needs: [e], gate: { checks: [{ metric: f1, role: success }, { metric: mine, role: success }, { metric: recall, by: c, min: 0 }, { metric: ndcg@5, role: success }] } } }\n",
        &["3:145 missing-evidence", "3:178 missing-evidence", "3:213 missing-evidence"],
    ),
    (
        "W\nsteps: { a: { run: [a] }, g: { needs: [a], gate: { checks: [{ expr: 'true', role: success }] } } }\n",
        &["2:61 value"],
    ),
    // promote, approval
    (
        "W\nmodel: m\nsteps: { t: { run: [a], artifacts: { m: m } }, g: { needs: [t], gate: { checks: [{ metric: x, min: 0 }] } }, p: { needs: [g], promote: { artifact: '${{ steps.t.artifacts.m }}', watch: { for: soon, rollback_on: { type: alert } } } }, a: { approval: { two_person: true, timeout: 1h, on_timeout: approve } } }\n",
        &["3:192 duration", "3:213 pattern", "3:251 misplaced-key"],
    ),
    (
        "W\nmodel: m\nsteps: { t: { run: [a], artifacts: { m: m } }, g: { needs: [t], gate: { checks: [{ metric: x, min: 0 }] } }, p: { needs: [g], promote: { artifact: '${{ steps.t.artifacts.m }}', watch: {} } } }\n",
        &["3:178 missing-key", "3:178 missing-key"],
    ),
    // what a check of a watch sees
    (
        "W\nmodel: m\nsteps: { t: { run: [a], artifacts: { m: m } }, g: { needs: [t], gate: { checks: [{ metric: x, min: 0 }] } }, p: { needs: [g], promote: { artifact: '${{ steps.t.artifacts.m }}', watch: { for: 1h, rollback_on: { type: [t] }, checks: [] } } } }\n",
        &["3:232 value"],
    ),
    (
        "W\nmodel: m\nsteps: { t: { run: [a], artifacts: { m: m } }, g: { needs: [t], gate: { checks: [{ metric: x, min: 0 }] } }, p: { needs: [g], promote: { artifact: '${{ steps.t.artifacts.m }}', watch: { for: 1h, rollback_on: { type: [t] }, checks: [{ expr: data.x > promoted.metrics.x && previous.version < 3 }, { because: b }, { expr: champion.metrics.x > 1 }, { expr: promoted.metric.x > 1 }, { expr: promoted.version == 'a' }, { expr: 1 + 1 }, { metric: x, min: 1 }] } } } }\n",
        &[
            "3:296 missing-key",
            "3:320 unknown-name",
            "3:354 unknown-name",
            "3:387 type",
            "3:422 type",
            "3:431 missing-key",
            "3:433 unknown-key",
            "3:444 unknown-key",
        ],
    ),
    // call
    ("W\nsteps: { a: { call: {} } }\n", &["2:15 missing-key"]),
    (
        "W\nsteps: { a: { call: { method: get, url: ftp://x } }, b: { call: { method: GET, url: 'http://', json: {} } } }\n",
        &["2:31 value", "2:41 value", "2:85 value", "2:96 value"],
    ),
    (
        "W\nsteps: { a: { call: { url: '${{ params.u }}', headers: { 'a b': x, Host: x, X-A: 1, x-a: 2 } } } }\n",
        &["2:33 unknown-param", "2:58 name", "2:68 reserved-name", "2:85 duplicate-key"],
    ),
    (
        "W\nsteps: { a: { call: { url: 'serving/${{ run.name }}' }, env: { A: b } } }\n",
        &["2:28 value", "2:57 misplaced-key"],
    ),
    // workflow
    (
        "W\nsteps: { a: { workflow: A B }, b: { workflow: {} }, c: { workflow: { name: x, param: {} }, timeout: 1h } }\n",
        &["2:25 name", "2:37 missing-key", "2:79 unknown-key", "2:92 misplaced-key"],
    ),
    // validate
    ("W\nsteps: { a: { validate: {} } }\n", &["2:15 missing-key", "2:15 missing-key"]),
    (
        "W\nsteps: { a: { validate: { data: 'http://x/y.csv', checks: [] } } }\n",
        &["2:33 value", "2:51 value"],
    ),
    (
        "W\nsteps: { a: { validate: { data: x.txt, checks: [{ rows: {} }] } } }\n",
        &["2:33 missing-key", "2:51 missing-key"],
    ),
    (
        "W\nsteps: { a: { validate: { data: x.csv, checks: [{ rows: { min: 5, max: 2, change: { max: 0.5, against: previos } } }] } } }\n",
        &["2:72 value", "2:90 share", "2:104 value"],
    ),
    (
        "W\nsteps: { a: { validate: { data: x.csv, checks: [{ colum: a, missing: { max: 1% } }, { missing: { max: 1% } }, { column: a }, { rows: { min: 1 }, column: a }, {}, { drift: { columns: [] }, between: [0, 1] }] } } }\n",
        &[
            "2:51 unknown-key",
            "2:85 missing-key",
            "2:111 missing-key",
            "2:126 value",
            "2:159 missing-key",
            "2:165 missing-key",
            "2:165 missing-key",
            "2:174 value",
            "2:189 misplaced-key",
        ],
    ),
    (
        "W\nsteps: { a: { validate: { data: x.csv, checks: [{ column: a, type: text, missing: { max: lots }, unique: false, between: [2, 1], in: [1, 1], matches: '(', length: {}, quantile: { at: 100%, min: 1 }, fresh: { within: 2 } }] } } }\n",
        &[
            "2:68 value",
            "2:90 number",
            "2:106 value",
            "2:122 value",
            "2:138 value",
            "2:151 value",
            "2:156 missing-key",
            "2:184 share",
            "2:217 duration",
        ],
    ),
    (
        "W\nsteps: { a: { validate: { data: x.csv, checks: [{ unique: true }, { rows: { min: 1 }, severity: error, where: '${{ params.x }}' }, { label_share: { column: y, value: 1 } }, { overlap: { with: t.csv, max: 200% } }] } } }\n",
        &["2:51 missing-key", "2:97 value", "2:111 value", "2:134 missing-key", "2:205 share"],
    ),
    // evaluate
    ("W\nsteps: { a: { evaluate: {} } }\n", &["2:15 missing-key", "2:15 missing-key", "2:15 missing-key"]),
    (
        "W\nsteps: { a: { evaluate: { predictions: p.parquet, label: y, candidate: a, champion: a, metrics: [accuracy, accuracy], group: q, by: [c, c] } } }\n",
        &["2:85 value", "2:108 value", "2:119 misplaced-key", "2:137 value"],
    ),
    (
        "W\nsteps: { a: { evaluate: { predictions: p.parquet, label: y, metrics: [ndcg@10, { name: recall, candidate: a, champion: b, direction: up }] } } }\n",
        &["2:88 reserved-name", "2:134 value"],
    ),
];

#[test]
fn every_problem_has_its_code_and_its_place() {
    assert_broken(BROKEN);
}
