//! What is refused of steps: keys, needs, `finally`, matrices, what a host must offer, what expressions read.

use super::{Broken, assert_broken};

const BROKEN: Broken = &[
    // steps
    (
        "W\nsteps: { a: { emit: { type: t }, env: { A: b }, timeout: 1h } }\n",
        &["2:34 misplaced-key", "2:49 misplaced-key"],
    ),
    ("W\nsteps: { a: { needs: [a], run: [a] } }\n", &["2:23 cycle"]),
    (
        "W\nsteps:\n  a: { needs: [c], run: [a] }\n  b: { needs: [a], run: [b] }\n  c: { needs: [b], run: [c] }\n  d: { needs: [e], run: [d] }\n  e: { needs: [d], run: [e] }\n",
        &["3:16 cycle", "6:16 cycle"],
    ),
    // run
    ("W\nsteps: { a: { run: [a], env: { A: ~, B: [x] } } }\n", &["2:35 wrong-type", "2:41 wrong-type"]),
    // what expressions read
    // types
    (
        "W\nsteps: { a: { run: [a] }, b: { needs: [a], run: [b], inputs: { i: '${{ params }}' } } }\n",
        &["2:67 value"],
    ),
    ("W\nsteps: { a: { run: [a, '${{ matrix.depth }}'] } }\n", &["2:29 unknown-name"]),
    // finally
    (
        "W\nsteps: { a: { run: [a] } }\nfinally: { y: { needs: [z], run: [y] }, z: { needs: [y], run: [z] } }\n",
        &["3:25 cycle"],
    ),
    (
        "W\nmodel: m\nsteps: { a: { run: [a], artifacts: { m: m } } }\nfinally: { p: { promote: { artifact: '${{ steps.a.artifacts.m }}' } } }\n",
        &["4:12 misplaced-verb"],
    ),
    // matrix
    ("W\nsteps: { a: { run: [a], matrix: {} } }\n", &["2:33 value"]),
    ("W\nsteps: { a: { run: [a], matrix: 'x ${{ run.name }}' } }\n", &["2:33 wrong-type"]),
    (
        "W\nsteps: { a: { run: [a], matrix: { X: [1], y: [1, '1'], z: [~, [a], '${{ run.name }}'], w: { a: 1 } } } }\n",
        &["2:35 name", "2:50 value", "2:60 wrong-type", "2:63 wrong-type", "2:68 value", "2:91 wrong-type"],
    ),
    (
        "W\nsteps: { a: { run: [a], max_parallel: 2, min_success: 80% } }\n",
        &["2:25 misplaced-key", "2:42 misplaced-key"],
    ),
    (
        "W\nsteps: { a: { run: [a], matrix: { x: [1] }, max_parallel: 0, min_success: 0% }, b: { run: [b], matrix: { x: [1] }, min_success: 0.8 } }\n",
        &["2:59 number", "2:75 share", "2:129 share"],
    ),
    (
        "W\nsteps: { a: { approval: {}, matrix: { x: [1] }, max_parallel: 1 } }\n",
        &["2:29 misplaced-key", "2:49 misplaced-key"],
    ),
    (
        "W\nsteps: { a: { if: matrix.x == 1, run: [a, '${{ matrix.y }}'], matrix: { x: [1], z: '${{ matrix.x }}' } } }\n",
        &["2:19 unknown-name", "2:48 unknown-name", "2:89 unknown-name"],
    ),
    (
        "W\nsteps: { a: { run: [a], matrix: { x: [1] }, artifacts: { m: m } }, b: { needs: [a], run: [b, '${{ steps.a.metrics.auc }}', '${{ steps.a.instances }}', '${{ steps.a.verdict }}'], inputs: { m: '${{ steps.a.artifacts.m }}' } } }\n",
        &["2:99 matrix-step", "2:157 unknown-name", "2:197 matrix-step"],
    ),
    (
        "W\nsteps: { a: { run: [a] }, b: { needs: [a], run: [b, '${{ steps.a.instances }}'] } }\n",
        &["2:58 unknown-name"],
    ),
    // select
    (
        "W\nsteps: { a: { run: [a], matrix: { x: [1] } }, b: { needs: [a], select: { from: a } } }\n",
        &["2:64 missing-key", "2:64 missing-key"],
    ),
    (
        "W\nsteps: { a: { run: [a], matrix: { x: [1] } }, b: { select: { from: a, by: steps.a.state, order: max } } }\n",
        &["2:68 not-ancestor", "2:75 unknown-name"],
    ),
    (
        "W\nsteps: { a: { run: [a], matrix: { x: [1] }, artifacts: { m: m } }, b: { needs: [a], select: { from: a, by: matrix.y, order: min } }, c: { needs: [b], run: [c], inputs: { i: '${{ steps.b.artifacts.n }}' } } }\n",
        &["2:108 unknown-name", "2:179 unknown-artifact"],
    ),
    // what workers are asked
    (
        "W\nsteps: { a: { run: [a], needs_host: { gpu: 1, cpus: 0, memory: 16, labels: { zone: '${{ params.x }}', 'a=b': c } } } }\n",
        &["2:39 unknown-key", "2:53 number", "2:64 size", "2:84 value", "2:103 value"],
    ),
    (
        "W\nsteps: { a: { run: [a], checkpoint: /ckpt, cache: maybe }, b: { run: [b], cache: {} }, c: { call: { url: 'https://x' }, cache: true, checkpoint: c } }\n",
        &["2:37 path", "2:51 wrong-type", "2:75 missing-key", "2:121 misplaced-key", "2:134 misplaced-key"],
    ),
    (
        "W\nsteps: { a: { run: [a], python: { version: three, packages: [], requirements: r.txt } }, b: { run: [b], python: { packages: [] } } }\n",
        &["2:44 value", "2:51 value", "2:115 value"],
    ),
    (
        "W\nsteps: { a: { run: [a], container: '${{ params.x }}' }, b: { run: [b], container: --privileged }, c: { run: [c], python: { packages: [p] }, container: p:1 }, d: { call: { url: 'https://x' }, container: p:1 } }\n",
        &["2:36 value", "2:83 value", "2:141 value", "2:192 misplaced-key"],
    ),
    (
        "W\nsteps: { a: { run: [a], env: { A: x }, secrets: [A, 1B, REFIT_X, OK, OK, LD_PRELOAD] }, b: { run: [b], secrets: [] }, c: { call: { url: 'https://x' }, secrets: [X] } }\n",
        &[
            "2:50 value",
            "2:53 name",
            "2:57 reserved-name",
            "2:70 value",
            "2:74 reserved-name",
            "2:104 value",
            "2:152 misplaced-key",
        ],
    ),
];

#[test]
fn every_problem_has_its_code_and_its_place() {
    assert_broken(BROKEN);
}
