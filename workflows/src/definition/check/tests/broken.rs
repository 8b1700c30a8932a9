//! What is refused at the top of a file: the file itself, params, concurrency, triggers, outputs.

use super::{Broken, assert_broken};

const BROKEN: Broken = &[
    // the file
    ("", &["1:1 empty"]),
    ("- a\n", &["1:1 wrong-type"]),
    ("hello\n", &["1:1 wrong-type"]),
    ("workflow: w\n", &["1:1 missing-key"]),
    ("steps: { a: { run: [a] } }\n", &["1:1 missing-key"]),
    ("workflow: w\nsteps: {}\n", &["2:1 missing-key"]),
    ("workflow: w\nsteps:\n  a: { run: [a] }\nworkflow: x\n", &["4:1 duplicate-key"]),
    ("workflow: w\nsteps:\n  a: { run: [a] }\n  a: { run: [b] }\n", &["4:3 duplicate-key"]),
    ("workflow: w\nsteps: &s\n  a: { run: [a] }\n", &["2:8 anchor"]),
    ("workflow: !x w\nsteps: { a: { run: [a] } }\n", &["1:11 tag"]),
    ("workflow: ~\nsteps: { a: { run: [a] } }\n", &["1:11 wrong-type"]),
    ("workflow: My Flow\nsteps: { a: { run: [a] } }\n", &["1:11 name"]),
    ("workflow: w\nstep: { a: { run: [a] } }\n", &["2:1 unknown-key"]),
    ("workflow: w\ncolour: red\nsteps: { a: { run: [a] } }\n", &["2:1 unknown-key"]),
    ("workflow: w\ncooldown: 1h\nfinally: {}\nsteps: { a: { run: [a] } }\n", &["3:1 missing-key"]),
    ("workflow: w\nsteps: { a: { run: [a] } }\n---\nworkflow: x\n", &["4:1 second-workflow"]),
    // params, concurrency, defaults
    ("W\nparams: { p: { type: text } }\nS", &["2:22 value"]),
    ("W\nparams: { p: { type: integer, default: 1.5 } }\nS", &["2:40 wrong-type"]),
    ("W\nparams: { p: { type: string, default: 5 } }\nS", &["2:39 wrong-type"]),
    ("W\nparams: { p: { type: boolean, default: yes } }\nS", &["2:40 wrong-type"]),
    ("W\nparams: { p: { type: number, default: .nan } }\nS", &["2:39 number"]),
    ("W\nparams: { p: { type: number, default: 1e400 } }\nS", &["2:39 number"]),
    ("W\nparams: { P Q: { type: number, defualt: 1 } }\nS", &["2:11 name", "2:32 unknown-key"]),
    (
        "W\nconcurrency: { key: steps.a, limit: 0, on_conflict: skip }\nS",
        &["2:21 unknown-name", "2:37 number"],
    ),
    (
        "W\ndefaults: { timeout: 0s, retry: { attempts: 101, backoff: 5 } }\nS",
        &["2:22 duration", "2:45 number", "2:59 duration"],
    ),
    ("W\ndefaults: { retry: { backoff: 1m, max_backoff: 10s } }\nS", &["2:48 duration"]),
    // triggers
    ("W\non: { cron: '0 3 * * *' }\nS", &["2:5 wrong-type"]),
    ("W\non: [{ timezone: UTC }]\nS", &["2:6 missing-key"]),
    ("W\non: [{ evnt: { type: [a] } }]\nS", &["2:8 unknown-key"]),
    ("W\non: [{ all: [], within: 6h }]\nS", &["2:8 value"]),
    ("W\non: [{ cron: '* * * * * *' }]\nS", &["2:14 schedule"]),
    ("W\non: [{ cron: '0 0 31 2 *' }]\nS", &["2:14 schedule"]),
    (
        "W\non: [{ cron: '0 3 * * *', timezone: Mars/X, catch_up: some, batch: { count: 1 } }]\nS",
        &["2:37 schedule", "2:55 value", "2:61 misplaced-key"],
    ),
    ("W\non: [{ event: { type: dataset.updated } }]\nS", &["2:17 pattern"]),
    ("W\non: [{ event: { data: { n: [1, { contains: x }] } } }]\nS", &["2:32 pattern"]),
    (
        "W\non: [{ event: { type: [a] }, where: 'data.rows >', by: params.x }]\nS",
        &["2:49 expression", "2:56 unknown-name"],
    ),
    ("W\non: [{ event: { type: [a] }, where: '${{ data.x }}' }]\nS", &["2:37 expression"]),
    ("W\non: [{ event: { type: [a] }, batch: {} }]\nS", &["2:30 missing-key"]),
    (
        "W\non: [{ event: { type: [a] }, batch: { count: 0, quiet: 1h, max_wait: 1m, sum: {} } }]\nS",
        &["2:46 number", "2:49 duration", "2:74 missing-key", "2:74 missing-key"],
    ),
    (
        "W\non: [{ event: { type: [a] }, params: { x: '${{ batch.kye }}' } }]\nS",
        &["2:40 unknown-param", "2:48 unknown-name"],
    ),
    ("W\nparams: { p: { type: string } }\non: [{ cron: '0 3 * * *' }]\nS", &["3:8 missing-param"]),
    (
        "W\nparams: { p: { type: integer, default: 1 } }\non: [{ cron: '0 3 * * *', params: { p: two } }]\nS",
        &["3:40 wrong-type"],
    ),
    // the rest of the top
    (
        "W\ncooldown: 0s\noutputs: { A: '${{ steps.b.metrics.x }}', c: '${{ matrix.x }}' }\nS",
        &["2:11 duration", "3:12 name", "3:20 unknown-step", "3:51 unknown-name"],
    ),
    ("W\noutputs: [a]\nS", &["2:10 wrong-type"]),
    ("W\nconcurrency: { on_conflict: cancel, before: a }\nS", &["2:29 value", "2:37 misplaced-key"]),
    ("W\nconcurrency: { on_conflict: cancel_running, before: b }\nS", &["2:53 unknown-step"]),
    (
        "W\nconcurrency: { on_conflict: cancel_running, before: z }\nsteps: { a: { run: [a] } }\nfinally: { z: { run: [z] } }\n",
        &["2:53 unknown-step"],
    ),
    // joins and sums
    ("W\non: [{ all: [{ type: [a] }, { type: [b] }] }]\nS", &["2:6 missing-key"]),
    (
        "W\non: [{ all: [{ type: [a] }, { type: b }], within: 0s, on_expire: burn, batch: { count: 1 } }]\nS",
        &["2:31 pattern", "2:51 duration", "2:66 value", "2:72 misplaced-key"],
    ),
    (
        "W\non: [{ all: [{ type: [a] }, { type: [b] }], within: 6h, wher: x, by: params.x }]\nS",
        &["2:57 unknown-key", "2:70 unknown-name"],
    ),
    ("W\non: [{ all: [{ type: [a] }, { type: [b] }], event: { type: [a] } }]\nS", &["2:8 value"]),
    ("W\non: [{ event: { type: [a] }, within: 6h }]\nS", &["2:30 misplaced-key"]),
    (
        "W\non: [{ event: { type: [a] }, batch: { sum: { of: 'data.rows +', at_least: 0 } } }]\nS",
        &["2:62 expression", "2:75 number"],
    ),
    (
        "W\non: [{ event: { type: [a] }, batch: { sum: { of: batch.count, at_least: many } } }]\nS",
        &["2:50 unknown-name", "2:73 number"],
    ),
];

#[test]
fn every_problem_has_its_code_and_its_place() {
    assert_broken(BROKEN);
}
