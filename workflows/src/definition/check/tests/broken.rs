//! What is refused at the top of a file: the file itself, params, concurrency, triggers, outputs.

use super::{Broken, assert_broken};

const BROKEN: Broken = &[
    // the file
    ("workflow: w\nsteps:\n  a: { run: [a] }\nworkflow: x\n", &["4:1 duplicate-key"]),
    // params, concurrency, defaults
    ("W\nparams: { p: { type: integer, default: 1.5 } }\nS", &["2:40 wrong-type"]),
    ("W\nparams: { P Q: { type: number, defualt: 1 } }\nS", &["2:11 name", "2:32 unknown-key"]),
    (
        "W\nconcurrency: { key: steps.a, limit: 0, on_conflict: skip }\nS",
        &["2:21 unknown-name", "2:37 number"],
    ),
    (
        "W\ndefaults: { timeout: 0s, retry: { attempts: 101, backoff: 5 } }\nS",
        &["2:22 duration", "2:45 number", "2:59 duration"],
    ),
    // triggers
    (
        "W\non: [{ cron: '0 3 * * *', timezone: Mars/X, catch_up: some, batch: { count: 1 } }]\nS",
        &["2:37 schedule", "2:55 value", "2:61 misplaced-key"],
    ),
    (
        "W\non: [{ event: { type: [a] }, batch: { count: 0, quiet: 1h, max_wait: 1m, sum: {} } }]\nS",
        &["2:46 number", "2:49 duration", "2:74 missing-key", "2:74 missing-key"],
    ),
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
    (
        "W\nconcurrency: { on_conflict: cancel_running, before: z }\nsteps: { a: { run: [a] } }\nfinally: { z: { run: [z] } }\n",
        &["2:53 unknown-step"],
    ),
    // joins and sums
    (
        "W\non: [{ all: [{ type: [a] }, { type: b }], within: 0s, on_expire: burn, batch: { count: 1 } }]\nS",
        &["2:31 pattern", "2:51 duration", "2:66 value", "2:72 misplaced-key"],
    ),
    (
        "W\non: [{ all: [{ type: [a] }, { type: [b] }], within: 6h, wher: x, by: params.x }]\nS",
        &["2:57 unknown-key", "2:70 unknown-name"],
    ),
    ("W\non: [{ all: [{ type: [a] }, { type: [b] }], event: { type: [a] } }]\nS", &["2:8 value"]),
    (
        "W\non: [{ event: { type: [a] }, batch: { sum: { of: batch.count, at_least: many } } }]\nS",
        &["2:50 unknown-name", "2:73 number"],
    ),
];

#[test]
fn every_problem_has_its_code_and_its_place() {
    assert_broken(BROKEN);
}
