//! What is refused of steps: keys, needs, `finally`, matrices, what a host must offer, what expressions read.

use super::{Broken, assert_broken};

const BROKEN: Broken = &[
    // steps
    (
        "W\nsteps:\n  a: { need: [b], run: [a] }\n  b: { run: [b], tiemout: 1h }\n",
        &["3:8 unknown-key", "4:18 unknown-key"],
    ),
    ("W\nsteps: { a: { needs: [] } }\n", &["2:10 no-verb"]),
    ("W\nsteps: { a: { rum: [a] } }\n", &["2:15 unknown-key"]),
    ("W\nsteps: { a: { run: [a], emit: { type: t } } }\n", &["2:25 many-verbs"]),
    (
        "W\nsteps: { a: { emit: { type: t }, env: { A: b }, timeout: 1h } }\n",
        &["2:34 misplaced-key", "2:49 misplaced-key"],
    ),
    (
        "W\nsteps:\n  a: { needs: [c, b, b], run: [a] }\n  b: { run: [b] }\n",
        &["3:16 unknown-step", "3:22 duplicate-need"],
    ),
    ("W\nsteps: { a: { needs: b, run: [a] }, b: { run: [b] } }\n", &["2:22 wrong-type"]),
    ("W\nsteps: { a: { needs: [a], run: [a] } }\n", &["2:23 cycle"]),
    (
        "W\nsteps:\n  a: { needs: [c], run: [a] }\n  b: { needs: [a], run: [b] }\n  c: { needs: [b], run: [c] }\n  d: { needs: [e], run: [d] }\n  e: { needs: [d], run: [e] }\n",
        &["3:16 cycle", "6:16 cycle"],
    ),
    ("W\nsteps: { -rf: { run: [a] }, A: { run: [a] } }\n", &["2:10 name", "2:29 name"]),
    (
        "W\nsteps: { a: { run: [a] }, b: { needs: [aa], run: [b] }, c: { needs: [b], if: steps.a.state == 'failed', run: [c] } }\n",
        &["2:40 unknown-step"],
    ),
    // run
    ("W\nsteps: { a: { run: [] } }\n", &["2:20 value"]),
    ("W\nsteps: { a: { run: '' } }\n", &["2:20 value"]),
    ("W\nsteps:\n  a:\n    run: |\n      set -e\n      echo ${{ params.x }}\n", &["6:12 unsafe-shell"]),
    (
        "W\nparams: { x: { type: string } }\nsteps: { a: { run: [bash, -ec, 'echo ${{ params.x }}'] } }\n",
        &["3:32 unsafe-shell"],
    ),
    (
        "W\nparams: { x: { type: string } }\nsteps: { a: { run: [env, python3.12, -u, -c, 'print(${{ params.x }})'] } }\n",
        &["3:46 unsafe-shell"],
    ),
    (
        "W\nparams: { x: { type: string } }\nsteps: { a: { run: ['${{ params.x }}'] } }\n",
        &["3:21 unsafe-shell"],
    ),
    (
        "W\nsteps: { a: { run: [a], env: { 1A: x, REFIT_X: x, PARAM_Y: x, LD_PRELOAD: x, 'A=B': x } } }\n",
        &["2:32 name", "2:39 reserved-name", "2:51 reserved-name", "2:63 reserved-name", "2:78 name"],
    ),
    ("W\nsteps: { a: { run: [a], env: { A: ~, B: [x] } } }\n", &["2:35 wrong-type", "2:41 wrong-type"]),
    (
        "W\nsteps: { a: { run: [a], artifacts: { m: /etc/passwd, n: ../x, o: 'C:\\x', p: a/../../x } } }\n",
        &["2:41 path", "2:57 path", "2:66 path", "2:77 path"],
    ),
    ("W\nsteps: { a: { run: [a], python: { requirement: r.txt } } }\n", &["2:35 unknown-key"]),
    (
        "W\nsteps: { a: { run: [a], timeout: 1h30, retry: { attempts: many } } }\n",
        &["2:34 duration", "2:59 number"],
    ),
    ("W\nsteps: { a: { run: [a, 'x ${{ params.y'] } }\n", &["2:27 template"]),
    // what expressions read
    ("W\nsteps: { a: { run: [a, '${{ params.y }}'] } }\n", &["2:29 unknown-param"]),
    // types
    (
        "W\nsteps: { a: { run: [a] }, b: { needs: [a], if: steps.a.state == 'x', run: [b] } }\n",
        &["2:65 unknown-name"],
    ),
    (
        "W\nsteps: { a: { run: [a] }, b: { needs: [a], if: steps.a.metrics.auc > '1', run: [b] } }\n",
        &["2:48 type"],
    ),
    ("W\nsteps: { a: { run: [a] }, b: { needs: [a], if: steps.a.metrics.auc, run: [b] } }\n", &["2:48 type"]),
    (
        "W\nparams: { n: { type: integer, default: 1 } }\nsteps: { a: { run: [a, '${{ params.n + \"x\" }}'] } }\n",
        &["3:29 type"],
    ),
    ("W\nsteps: { a: { if: step.b.state == 'x', run: [a] } }\n", &["2:19 unknown-name"]),
    ("W\nsteps: { a: { if: steps.b.state == 'x', run: [a] } }\n", &["2:19 unknown-step"]),
    (
        "W\nsteps: { a: { run: [a] }, b: { if: steps.a.state == 'failed', run: [b] } }\n",
        &["2:36 not-ancestor"],
    ),
    (
        "W\nsteps: { a: { run: [a] }, b: { needs: [a], if: steps.a.stat == 'x', run: [b] } }\n",
        &["2:48 unknown-name"],
    ),
    (
        "W\nsteps: { a: { run: [a], artifacts: { m: m } }, b: { needs: [a], run: [b], inputs: { i: '${{ steps.a.artifacts.n }}' } } }\n",
        &["2:93 unknown-artifact"],
    ),
    (
        "W\nsteps: { a: { run: [a] }, b: { needs: [a], run: [b], inputs: { i: '${{ params }}' } } }\n",
        &["2:67 value"],
    ),
    (
        "W\nsteps: { a: { run: [a] }, b: { needs: [a], if: steps.a.verdict == 'pass', run: [b] } }\n",
        &["2:48 unknown-name"],
    ),
    ("W\nsteps: { a: { run: [a, '${{ failed() }}'] } }\n", &["2:24 expression"]),
    ("W\nsteps: { a: { run: [a, '${{ champion.version }}'] } }\n", &["2:29 missing-key"]),
    ("W\nsteps: { a: { run: [a, '${{ matrix.depth }}'] } }\n", &["2:29 unknown-name"]),
    ("W\nsteps: { a: { if: lower(run.state), run: [a] } }\n", &["2:19 expression"]),
    // finally
    (
        "W\nsteps: { a: { run: [a] }, b: { needs: [z], run: [b] } }\nfinally: { z: { needs: [a], run: [z] }, a: { run: [a] } }\n",
        &["2:40 unknown-step", "3:25 unknown-step", "3:41 duplicate-key"],
    ),
    (
        "W\nsteps: { a: { run: [a, '${{ steps.z.outputs.x }}'] } }\nfinally: { z: { run: [z, '${{ steps.a.outputs.x }}'] } }\n",
        &["2:29 not-ancestor"],
    ),
    (
        "W\nsteps: { a: { run: [a] } }\nfinally: { y: { run: [y] }, z: { run: [z, '${{ steps.y.outputs.x }}'] } }\n",
        &["3:48 not-ancestor"],
    ),
    (
        "W\nsteps: { a: { run: [a] } }\nfinally: { y: { needs: [z], run: [y] }, z: { needs: [y], run: [z] } }\n",
        &["3:25 cycle"],
    ),
    (
        "W\nmodel: m\nsteps: { a: { run: [a], artifacts: { m: m } } }\nfinally: { p: { promote: { artifact: '${{ steps.a.artifacts.m }}' } } }\n",
        &["4:12 misplaced-verb"],
    ),
    // matrix
    ("W\nsteps: { a: { run: [a], matrix: { x: [] } } }\n", &["2:38 value"]),
    ("W\nsteps: { a: { run: [a], matrix: {} } }\n", &["2:33 value"]),
    ("W\nsteps: { a: { run: [a], matrix: [1, 2] } }\n", &["2:33 wrong-type"]),
    ("W\nsteps: { a: { run: [a], matrix: 'x ${{ run.name }}' } }\n", &["2:33 wrong-type"]),
    (
        "W\nsteps: { a: { run: [a], matrix: { X: [1], y: [1, '1'], z: [~, [a], '${{ run.name }}'], w: { a: 1 } } } }\n",
        &["2:35 name", "2:50 value", "2:60 wrong-type", "2:63 wrong-type", "2:68 value", "2:91 wrong-type"],
    ),
    ("W\nsteps: { a: { run: [a], matrix: { x: [1], x: [2] } } }\n", &["2:43 duplicate-key"]),
    (
        "W\nsteps: { a: { run: [a], matrix: { x: [1,2,3,4,5,6,7,8,9,10,11], y: [1,2,3,4,5,6,7,8,9,10], z: [1,2,3,4,5,6,7,8,9,10] } } }\n",
        &["2:33 too-many"],
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
        "W\nsteps: { a: { run: [a] }, b: { needs: [a], select: { from: a, by: metrics.x, order: max } }, c: { select: { from: z, by: metrics.x, order: best } } }\n",
        &["2:60 value", "2:115 unknown-step", "2:140 value"],
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
];

#[test]
fn every_problem_has_its_code_and_its_place() {
    assert_broken(BROKEN);
}
