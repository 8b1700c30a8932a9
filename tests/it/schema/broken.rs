//! Files with one thing wrong each: what the schema must see, and what it cannot.

/// What is wrong, and the file.
type Broken = &'static [(&'static str, &'static str)];

/// Files of tests.
pub(super) const TESTS: Broken = &[
    ("no cases", "workflow: w.yaml\n"),
    ("a misspelt key", "cases: []\ncase: a\n"),
    ("a case without a name", "cases: [{ expect: {} }]\n"),
    ("a case that expects nothing at all", "cases: [{ case: a }]\n"),
    ("a list where a mapping belongs", "cases: [{ case: a, expect: [] }]\n"),
    ("no unit", "cases: [{ case: a, expect: {}, until: 90 }]\n"),
    ("a time that is none", "cases: [{ case: a, expect: {}, start: yesterday }]\n"),
    ("an event without a type", "cases: [{ case: a, expect: {}, given: [{ event: { id: e } }] }]\n"),
    (
        "a misspelt key of an event",
        "cases: [{ case: a, expect: {}, given: [{ event: { type: t, date: {} } }] }]\n",
    ),
    ("a run that is none", "cases: [{ case: a, expect: {}, given: [{ cancel: w }] }]\n"),
    (
        "how often, in words",
        "cases: [{ case: a, expect: {}, given: [{ event: { type: t }, times: twice }] }]\n",
    ),
    ("a metric that is text", "cases: [{ case: a, expect: {}, champion: { metrics: { auc: high } } }]\n"),
    ("an exit code beyond all", "cases: [{ case: a, expect: {}, steps: { a: { exit: 256 } } }]\n"),
    ("no attempts", "cases: [{ case: a, expect: {}, steps: { a: [] } }]\n"),
    ("what is neither", "cases: [{ case: a, expect: {}, steps: { a: fails } }]\n"),
    ("yes for true", "cases: [{ case: a, expect: {}, steps: { a: { lost: maybe } } }]\n"),
    ("a verdict that is none", "cases: [{ case: a, expect: {}, steps: { a: { verdict: maybe } } }]\n"),
    ("a version that is none", "cases: [{ case: a, expect: { champion: first } }]\n"),
    ("decisions that are no list", "cases: [{ case: a, expect: { decisions: { e1: started } } }]\n"),
    ("a misspelt key of a run", "cases: [{ case: a, expect: { runs: [{ status: failed }] } }]\n"),
    ("fewer than no events", "cases: [{ case: a, expect: { runs: [{ events: -1 }] } }]\n"),
    ("how often in words", "cases: [{ case: a, expect: { runs: [{ attempts: { a: twice } }] } }]\n"),
];

pub(super) const SEEN: Broken = &[
    // the top
    ("no workflow at all", "hello\n"),
    ("no name", "steps: { a: { run: [a] } }\n"),
    ("no steps", "workflow: w\n"),
    ("steps without a step", "workflow: w\nsteps: {}\n"),
    ("finally without a step", "workflow: w\nfinally: {}\nsteps: { a: { run: [a] } }\n"),
    ("a name with a space", "workflow: My Flow\nsteps: { a: { run: [a] } }\n"),
    ("no value", "workflow: ~\nsteps: { a: { run: [a] } }\n"),
    ("a misspelt key", "workflow: w\ncooldwon: 1h\nsteps: { a: { run: [a] } }\n"),
    ("a step with a name that is none", "workflow: w\nsteps: { A B: { run: [a] } }\n"),
    ("no unit", "workflow: w\ncooldown: 90\nsteps: { a: { run: [a] } }\n"),
    ("a unit that is none", "workflow: w\ncooldown: 1w\nsteps: { a: { run: [a] } }\n"),
    ("no time at all", "workflow: w\ncooldown: 0s\nsteps: { a: { run: [a] } }\n"),
    ("a list where a mapping belongs", "workflow: w\noutputs: [a]\nsteps: { a: { run: [a] } }\n"),
    // params, concurrency, defaults
    ("a type that is none", "workflow: w\nparams: { p: { type: text } }\nsteps: { a: { run: [a] } }\n"),
    ("a param without a type", "workflow: w\nparams: { p: { default: 1 } }\nsteps: { a: { run: [a] } }\n"),
    (
        "text for a whole number",
        "workflow: w\nparams: { p: { type: integer, default: \"4\" } }\nsteps: { a: { run: [a] } }\n",
    ),
    (
        "a fraction for a whole number",
        "workflow: w\nparams: { p: { type: integer, default: 1.5 } }\nsteps: { a: { run: [a] } }\n",
    ),
    (
        "yes for true",
        "workflow: w\nparams: { p: { type: boolean, default: yes } }\nsteps: { a: { run: [a] } }\n",
    ),
    ("a limit of nothing", "workflow: w\nconcurrency: { limit: 0 }\nsteps: { a: { run: [a] } }\n"),
    (
        "a word that is none",
        "workflow: w\nconcurrency: { on_conflict: cancel }\nsteps: { a: { run: [a] } }\n",
    ),
    (
        "a key of another word",
        "workflow: w\nconcurrency: { on_conflict: queue, before: a }\nsteps: { a: { run: [a] } }\n",
    ),
    (
        "too many attempts",
        "workflow: w\ndefaults: { retry: { attempts: 101 } }\nsteps: { a: { run: [a] } }\n",
    ),
    // triggers
    ("triggers that are no list", "workflow: w\non: { cron: '0 3 * * *' }\nsteps: { a: { run: [a] } }\n"),
    ("a trigger of no kind", "workflow: w\non: [{ timezone: UTC }]\nsteps: { a: { run: [a] } }\n"),
    (
        "a trigger of two kinds",
        "workflow: w\non: [{ event: { type: [a] }, cron: '0 3 * * *' }]\nsteps: { a: { run: [a] } }\n",
    ),
    (
        "a key of another kind of trigger",
        "workflow: w\non: [{ cron: '0 3 * * *', batch: { count: 1 } }]\nsteps: { a: { run: [a] } }\n",
    ),
    ("six fields", "workflow: w\non: [{ cron: '* * * * * *' }]\nsteps: { a: { run: [a] } }\n"),
    (
        "a join of one",
        "workflow: w\non: [{ all: [{ type: [a] }], within: 6h }]\nsteps: { a: { run: [a] } }\n",
    ),
    (
        "a join without end",
        "workflow: w\non: [{ all: [{ type: [a] }, { type: [b] }] }]\nsteps: { a: { run: [a] } }\n",
    ),
    (
        "a batch that never fires",
        "workflow: w\non: [{ event: { type: [a] }, batch: {} }]\nsteps: { a: { run: [a] } }\n",
    ),
    (
        "a template for an expression",
        "workflow: w\non: [{ event: { type: [a] }, where: '${{ data.x }}' }]\nsteps: { a: { run: [a] } }\n",
    ),
    // event patterns
    ("a value that is no list", "workflow: w\non: [{ event: { type: a } }]\nsteps: { a: { run: [a] } }\n"),
    ("an empty pattern", "workflow: w\non: [{ event: {} }]\nsteps: { a: { run: [a] } }\n"),
    (
        "an operator that is none",
        "workflow: w\non: [{ event: { n: [{ contains: x }] } }]\nsteps: { a: { run: [a] } }\n",
    ),
    (
        "a comparison that is none",
        "workflow: w\non: [{ event: { n: [{ numeric: ['=>', 1] }] } }]\nsteps: { a: { run: [a] } }\n",
    ),
    (
        "bounds the wrong way round",
        "workflow: w\non: [{ event: { n: [{ numeric: ['<', 1, '>', 0] }] } }]\nsteps: { a: { run: [a] } }\n",
    ),
    (
        "a network that is none",
        "workflow: w\non: [{ event: { n: [{ cidr: localhost }] } }]\nsteps: { a: { run: [a] } }\n",
    ),
    // steps
    ("no verb", "workflow: w\nsteps: { a: { timeout: 1h } }\n"),
    ("two verbs", "workflow: w\nsteps: { a: { run: [a], emit: { type: x } } }\n"),
    ("a key of another verb", "workflow: w\nsteps: { a: { emit: { type: x }, retry: { attempts: 2 } } }\n"),
    ("values for no file", "workflow: w\nsteps: { a: { run: [a], with: { x: 1 } } }\n"),
    ("needs that are no list", "workflow: w\nsteps: { a: { run: [a] }, b: { run: [b], needs: a } }\n"),
    ("nothing to run", "workflow: w\nsteps: { a: { run: [] } }\n"),
    ("a value in a script", "workflow: w\nsteps: { a: { run: 'echo ${{ run.state }}' } }\n"),
    ("a reserved variable", "workflow: w\nsteps: { a: { run: [a], env: { REFIT_X: y } } }\n"),
    ("a secret with a reserved name", "workflow: w\nsteps: { a: { run: [a], secrets: [REFIT_X] } }\n"),
    ("no secrets", "workflow: w\nsteps: { a: { run: [a], secrets: [] } }\n"),
    ("a path that leaves the folder", "workflow: w\nsteps: { a: { run: [a], artifacts: { m: ../m } } }\n"),
    ("a path from the root", "workflow: w\nsteps: { a: { run: [a], checkpoint: /ckpt } }\n"),
    ("a matrix without names", "workflow: w\nsteps: { a: { run: [a], matrix: [1, 2] } }\n"),
    ("an axis without values", "workflow: w\nsteps: { a: { run: [a], matrix: { d: [] } } }\n"),
    ("a share of a matrix that is none", "workflow: w\nsteps: { a: { run: [a], min_success: 80% } }\n"),
    (
        "a share without its sign",
        "workflow: w\nsteps: { a: { run: [a], matrix: { d: [1] }, min_success: 0.8 } }\n",
    ),
    ("a size without its unit", "workflow: w\nsteps: { a: { run: [a], needs_host: { memory: 16 } } }\n"),
    (
        "packages twice",
        "workflow: w\nsteps: { a: { run: [a], python: { requirements: r.txt, packages: [x] } } }\n",
    ),
    ("an input that is text", "workflow: w\nsteps: { a: { run: [a], inputs: { m: model.bin } } }\n"),
    // verbs
    ("a gate without checks", "workflow: w\nsteps: { a: { gate: { checks: [] } } }\n"),
    ("a check of nothing", "workflow: w\nsteps: { a: { gate: { checks: [{ min: 1 }] } } }\n"),
    ("a check that asks for nothing", "workflow: w\nsteps: { a: { gate: { checks: [{ metric: m }] } } }\n"),
    (
        "a metric and a condition",
        "workflow: w\nsteps: { a: { gate: { checks: [{ metric: m, min: 1, expr: 'true' }] } } }\n",
    ),
    (
        "a guardrail without a margin",
        "workflow: w\nmodel: m\nsteps: { a: { gate: { checks: [{ metric: m, role: guardrail }] } } }\n",
    ),
    (
        "a bound beside a comparison",
        "workflow: w\nmodel: m\nsteps: { a: { gate: { checks: [{ metric: m, role: success, min: 1 }] } } }\n",
    ),
    ("silence without an end", "workflow: w\nsteps: { a: { approval: { on_timeout: approve } } }\n"),
    ("a GET with a body", "workflow: w\nsteps: { a: { call: { method: GET, url: 'http://a', json: 1 } } }\n"),
    ("no address", "workflow: w\nsteps: { a: { call: { url: ftp://a/b } } }\n"),
    (
        "a header that is none",
        "workflow: w\nsteps: { a: { call: { url: 'http://a', headers: { 'a b': c } } } }\n",
    ),
    (
        "a column nobody asks anything of",
        "workflow: w\nsteps: { a: { validate: { data: x.csv, checks: [{ column: a }] } } }\n",
    ),
    (
        "a rule without its column",
        "workflow: w\nsteps: { a: { validate: { data: x.csv, checks: [{ rows: { min: 1 }, missing: { max: 1% } }] } } }\n",
    ),
    (
        "two things in one check",
        "workflow: w\nsteps: { a: { validate: { data: x.csv, checks: [{ rows: { min: 1 }, unique: [a] }] } } }\n",
    ),
    (
        "one bound of two",
        "workflow: w\nsteps: { a: { validate: { data: x.csv, checks: [{ column: a, between: [0] }] } } }\n",
    ),
    (
        "no metrics",
        "workflow: w\nsteps: { a: { evaluate: { predictions: p.csv, label: y, metrics: [] } } }\n",
    ),
    ("no order", "workflow: w\nsteps: { b: { select: { from: a, by: metrics.x } } }\n"),
];

pub(super) const UNSEEN: Broken = &[
    // other steps, and the graph
    ("a step that does not exist", "workflow: w\nsteps: { a: { run: [a], needs: [b] } }\n"),
    (
        "steps that wait for each other",
        "workflow: w\nsteps: { a: { run: [a], needs: [b] }, b: { run: [b], needs: [a] } }\n",
    ),
    ("a need twice", "workflow: w\nsteps: { a: { run: [a] }, b: { run: [b], needs: [a, a] } }\n"),
    ("one name in both places", "workflow: w\nsteps: { a: { run: [a] } }\nfinally: { a: { run: [a] } }\n"),
    (
        "a promotion without a gate",
        "workflow: w\nmodel: m\nsteps:\n  a: { run: [a], artifacts: { m: m } }\n  \
         p: { needs: [a], promote: { artifact: '${{ steps.a.artifacts.m }}' } }\n",
    ),
    (
        "a selection from no matrix",
        "workflow: w\nsteps: { a: { run: [a] }, b: { needs: [a], select: { from: a, by: metrics.x, order: max } } }\n",
    ),
    ("metrics of nobody", "workflow: w\nsteps: { a: { gate: { checks: [{ metric: m, min: 1 }] } } }\n"),
    // expressions
    ("half an expression", "workflow: w\nsteps: { a: { run: [a], if: 'params.x >' } }\n"),
    ("a template that is never closed", "workflow: w\nsteps: { a: { run: [a, '${{ params'] } }\n"),
    ("a param that does not exist", "workflow: w\nsteps: { a: { run: [a, '${{ params.x }}'] } }\n"),
    (
        "an input that is no artifact",
        "workflow: w\nsteps: { a: { run: [a], inputs: { m: '${{ run.state }}' } } }\n",
    ),
    (
        "a value for an interpreter's code",
        "workflow: w\nsteps: { a: { run: [sh, -c, '${{ run.state }}'] } }\n",
    ),
    // two values beside each other
    (
        "nothing lies between",
        "workflow: w\nsteps: { a: { validate: { data: x.csv, checks: [{ rows: { min: 2, max: 1 } }] } } }\n",
    ),
    (
        "a pause that shrinks",
        "workflow: w\ndefaults: { retry: { backoff: 1m, max_backoff: 1s } }\nsteps: { a: { run: [a] } }\n",
    ),
    (
        "a param no trigger gives",
        "workflow: w\nparams: { p: { type: string } }\non: [{ cron: '0 3 * * *' }]\nsteps: { a: { run: [a] } }\n",
    ),
    // what takes a parser of its own
    ("a day that never comes", "workflow: w\non: [{ cron: '0 0 31 2 *' }]\nsteps: { a: { run: [a] } }\n"),
    (
        "a zone that does not exist",
        "workflow: w\non: [{ cron: '0 3 * * *', timezone: Mars/X }]\nsteps: { a: { run: [a] } }\n",
    ),
    ("longer than a duration may be", "workflow: w\ncooldown: 31d\nsteps: { a: { run: [a] } }\n"),
    (
        "a metric nobody counts",
        "workflow: w\nsteps: { a: { evaluate: { predictions: p.csv, label: y, metrics: [rocauc] } } }\n",
    ),
    (
        "data from elsewhere",
        "workflow: w\nsteps: { a: { validate: { data: 'ftp://a/b.csv', checks: [{ rows: { min: 1 } }] } } }\n",
    ),
    // numbers and text look alike to an editor's reader
    (
        "a number for text in a pattern",
        "workflow: w\non: [{ event: { n: [{ prefix: 5 }] } }]\nsteps: { a: { run: [a] } }\n",
    ),
    ("a plus before a number", "workflow: w\nconcurrency: { limit: +5 }\nsteps: { a: { run: [a] } }\n"),
    // other files
    ("a file that is not there", "workflow: w\nsteps: { a: { uses: a.yaml } }\n"),
];
