//! What the check of types must find, where it must point, and what it must let pass.

use std::time::{Duration, Instant};

use super::super::{Expression, Type, TypeProblem, Types};
use super::*;

const STATES: &[&str] = &["succeeded", "rejected", "failed", "skipped"];
const VERDICTS: &[&str] = &["pass", "fail", "inconclusive", "error"];

fn types() -> Types {
    let params = Type::record(
        "params",
        [
            ("n", Type::Int),
            ("x", Type::Double),
            ("region", Type::String),
            ("flag", Type::Bool),
            ("tags", Type::list(Type::String)),
            ("a-b", Type::String),
        ],
    );
    let artifacts = Type::record("step `train`", [("model", Type::String)])
        .with_hint("declare it there: `artifacts: { NAME: path }`");
    let train = Type::record(
        "step `train`",
        [
            ("state", Type::Word(STATES)),
            ("metrics", Type::map(Type::Number)),
            ("outputs", Type::map(Type::Dyn)),
            ("artifacts", artifacts),
        ],
    );
    let gate =
        Type::record("step `gate`", [("state", Type::Word(STATES)), ("verdict", Type::Word(VERDICTS))]);
    let steps =
        Type::record("this workflow", [("train", train.clone()), ("gate", gate), ("train-fast", train)]);
    Types::new()
        .with("params", params)
        .with("steps", steps)
        .with("champion", Type::record("the champion", [("version", Type::Int)]))
        .with("time", Type::String)
        .with("data", Type::Dyn)
}

fn typing(source: &str) -> Typing {
    Expression::parse(source).unwrap_or_else(|e| panic!("{source}: {e}")).check(&types())
}

/// The one problem of an expression, and the text it points at.
fn problem(source: &str) -> (TypeProblem, &str) {
    let found = typing(source).problems;
    let [problem] = found.as_slice() else { panic!("{source}: {found:#?}") };
    (problem.clone(), &source[problem.offset..problem.offset + problem.length])
}

#[test]
fn what_can_go_well_is_no_problem() {
    for (source, result) in [
        ("params.n > 3 && params.x < 0.5 && params.n < params.x", Type::Bool),
        ("steps.train.metrics.auc > 0.8 && steps.train.metrics['a b'] == 1", Type::Bool),
        ("steps['train-fast'].state == 'succeeded'", Type::Bool),
        ("params['a-b'] + params.region", Type::String),
        ("params.n - 1", Type::Int),
        ("-params.x", Type::Double),
        ("steps.train.metrics.auc * 2.0", Type::Double),
        ("champion == null || champion.version > 2", Type::Bool),
        ("has(steps.train.metrics.auc) ? steps.train.metrics.auc : 0", Type::Number),
        ("params.flag ? 'a' : 'b'", Type::String),
        ("params.flag ? 'a' : 1", Type::Scalar),
        ("'eu' in params.tags && 'n' in params && params.region in ['eu', 'us']", Type::Bool),
        ("params.tags.all(t, t.startsWith('a')) && params.tags.exists_one(t, t == 'b')", Type::Bool),
        ("params.tags.map(t, size(t))", Type::list(Type::Int)),
        ("params.tags.map(t, t != '', t + '!')", Type::list(Type::String)),
        ("params.tags.filter(t, t.matches('^a'))", Type::list(Type::String)),
        ("params.tags.map(a, params.tags.map(b, a + b))", Type::list(Type::list(Type::String))),
        ("params.all(name, name != '')", Type::Bool),
        ("params.tags[0]", Type::String),
        ("{'a': params.n, 'b': 2}", Type::map(Type::Int)),
        ("[1, 'a']", Type::list(Type::Scalar)),
        ("data.rows > 3 && data.table == 'x' && data.items[0].name in data.names", Type::Bool),
        ("data.a + data.b", Type::Dyn),
        ("timestamp(time) - timestamp(data.at) > duration('1h')", Type::Bool),
        ("timestamp(time) + duration('2d')", Type::Timestamp),
        ("timestamp(time).getHours('Europe/Berlin') + duration('90m').getMinutes()", Type::Int),
        ("timestamp(time).getDayOfWeek() in [0, 6] && int(timestamp(time)) > 0", Type::Bool),
        ("type(params.n) == int", Type::Bool),
        ("dyn(params.n) == 'a'", Type::Bool),
        ("succeeded() || failed() && !always()", Type::Bool),
        ("string(params.n) + string(params.x) + string(duration('1s'))", Type::String),
    ] {
        let found = typing(source);
        assert_eq!(found.problems, [], "{source}");
        assert_eq!(found.result, result, "{source}");
    }
}

#[test]
fn names_that_do_not_exist_are_found_where_they_stand() {
    for (source, place, message, hint) in [
        ("params.m > 1", "m", "params has no `m`", "there is a-b, flag, n, region, tags, x"),
        ("params.regon == 'eu'", "regon", "params has no `regon`", "did you mean `region`?"),
        ("  param.n > 1", "param", "`param` is not known here", "did you mean `params`?"),
        ("steps.train.metrcs.auc > 0.9", "metrcs", "step `train` has no `metrcs`", "did you mean `metrics`?"),
        (
            "steps['trian'].state == 'failed'",
            "'trian'",
            "this workflow has no `trian`",
            "did you mean `train`?",
        ),
        (
            "has( steps . train . metrix )",
            "metrix",
            "step `train` has no `metrix`",
            "did you mean `metrics`?",
        ),
        ("has(steps.train.artifacts.data)", "data", "step `train` has no `data`", "declare it there"),
        ("params.tags.all(t, t == tag)", "tag", "`tag` is not known here", "quotes"),
        ("params.a-b == 'x'", "a-b", "`a-b` cannot be written with a dot", "write params[\"a-b\"]"),
        (
            "steps.train-fast.metrics.auc > 0.8",
            "train-fast",
            "`train-fast` cannot be written with a dot",
            "write steps[\"train-fast\"]",
        ),
    ] {
        let (problem, at) = problem(source);
        assert_eq!(at, place, "{source}");
        assert_eq!(problem.code, "unknown-name", "{source}");
        assert!(problem.message.contains(message), "{source}: {}", problem.message);
        assert!(problem.hint.as_ref().is_some_and(|h| h.contains(hint)), "{source}: {:?}", problem.hint);
    }
    assert_eq!(problem("params.x1").0.message, "params has no `x1`");
}

#[test]
fn words_that_never_are_there_are_found_where_they_stand() {
    for (source, place, message, hint) in [
        (
            "steps.gate.verdict == 'pas'",
            "'pas'",
            "`steps.gate.verdict` is never `pas`",
            "did you mean `pass`?",
        ),
        (
            "'succeded' != steps.gate.state",
            "'succeded'",
            "`steps.gate.state` is never `succeded`",
            "did you mean `succeeded`?",
        ),
        ("steps.gate.verdict in ['pass', 'passed']", "'passed'", "is never `passed`", "pass"),
    ] {
        let (problem, at) = problem(source);
        assert_eq!((at, problem.code), (place, "unknown-word"), "{source}");
        assert!(problem.message.contains(message), "{source}: {}", problem.message);
        assert!(problem.hint.as_ref().is_some_and(|h| h.contains(hint)), "{source}: {:?}", problem.hint);
    }
}

#[test]
fn types_that_do_not_go_together_are_found_where_they_stand() {
    for (source, place, message, hint) in [
        (
            "params.flag && steps.train.metrics.auc == 'high'",
            "steps.train.metrics.auc == 'high'",
            "compares a number with text",
            "",
        ),
        (
            "params.n > \"3\"",
            "params.n > \"3\"",
            "compares a whole number with text",
            "write 3 without quotes",
        ),
        (
            "params.region < 3",
            "params.region < 3",
            "compares text with a whole number",
            "double(params.region)",
        ),
        ("params.flag == 'true'", "params.flag == 'true'", "never true", "write true without quotes"),
        (
            "time > timestamp(data.at)",
            "time > timestamp(data.at)",
            "text with a time",
            "write timestamp(time)",
        ),
        ("params.tags == 'a'", "params.tags == 'a'", "compares a list with text", ""),
        (
            "(params.n + params.x) > 1.0",
            "params.n + params.x",
            "`+` cannot be applied",
            "write double(params.n) + params.x",
        ),
        ("params.x * 2", "params.x * 2", "`*` cannot be applied", "write params.x * 2.0"),
        (
            "size(params.tags) / 0.5",
            "size(params.tags) / 0.5",
            "`/` cannot",
            "write double(size(params.tags)) / 0.5",
        ),
        ("1u - params.n", "1u - params.n", "`-` cannot be applied", "not mixed: write int(1u) - params.n"),
        ("'v' + params.n", "'v' + params.n", "`+` cannot be applied", "write string(params.n)"),
        (
            "params.x % 2",
            "params.x % 2",
            "`%` cannot be applied",
            "is for whole numbers: write int(params.x) % 2",
        ),
        ("null < 1", "null < 1", "null with a whole number", ""),
        ("params.flag && params.n", "params.n", "`&&` needs true or false", "params.n > 0"),
        ("!params.region", "!params.region", "`!` needs true or false", "params.region == \"yes\""),
        ("-params.region", "-params.region", "`-` needs a number", ""),
        ("params.n ? 1 : 2", "params.n", "`? :` needs true or false", ""),
        ("'e' in params.region", "params.region", "`in` looks into", "write params.region.contains('e')"),
        ("3 in params.tags", "3 in params.tags", "a whole number in a list where each is text", ""),
        ("params.tags['a']", "'a'", "a whole number, from 0", ""),
        ("params.tags[params.x]", "params.x", "a number with a fraction", "write int(params.x)"),
        ("params[0]", "0", "names, which are text", ""),
        ("params.n[0]", "params.n[0]", "it holds nothing", ""),
        ("params.region.name", "name", "`params.region` is text: it has no `name`", ""),
        ("params.region.all(c, c == 'a')", "params.region", "`all` goes over a list or an object", ""),
        ("params.tags.filter(t, size(t))", "size(t)", "`filter` asks a question", ""),
        ("params.tags.map(t, t + 1)", "t + 1", "`+` cannot be applied to text and a whole number", ""),
        ("params.tags.exists(t, t > 1)", "t > 1", "text with a whole number", ""),
        ("{params.x: 1}", "params.x", "a name in an object is text", ""),
        ("size(params.n)", "params.n", "`size` takes text, bytes, a list or an object", ""),
        ("params.n.startsWith('a')", "params.n", "`startsWith` takes text", "write string(params.n)"),
        ("params.region.startsWith(3)", "3", "`startsWith` takes text", ""),
        ("contains(params.region, 'a')", "contains", "with a dot", "x.contains(y)"),
        ("params.n.string()", "string", "in the brackets", "string(x)"),
        ("params.region.contains ()", "contains", "does not take 0 arguments", "x.contains(y)"),
        ("time.getHours()", "time", "`getHours` takes a time or a duration", "write timestamp(time)"),
        ("duration('1h').getHours('UTC')", "duration('1h')", "`getHours` takes a time", ""),
        ("timestamp(time) - timestamp(data.at) > duration('90x')", "'90x'", "`90x` is not a duration", "2d"),
        ("timestamp('yesterday') < timestamp(time)", "'yesterday'", "is not a time", "2026-01-31T08:00:00Z"),
        ("timestamp(time).getHours('Europe/Berln')", "'Europe/Berln'", "is not a time zone", "Europe/Berlin"),
        ("params.region.matches('a(')", "'a('", "is not a regular expression", ""),
        ("int('three')", "'three'", "is not a whole number", ""),
    ] {
        let (problem, at) = problem(source);
        assert_eq!(at, place, "{source}");
        assert_eq!(problem.code, "type", "{source}");
        assert!(problem.message.contains(message), "{source}: {}", problem.message);
        assert!(problem.hint.clone().unwrap_or_default().contains(hint), "{source}: {:?}", problem.hint);
    }
}

#[test]
fn all_problems_are_told_each_once_in_the_order_of_the_text() {
    let source =
        "(parms.a + 1 > 'x').b && params.n == 'a' || steps.train.metrcs.auc.x[0] * 2 > 1 && 'a' in 3";
    let found = typing(source).problems;
    let places: Vec<&str> = found.iter().map(|p| &source[p.offset..p.offset + p.length]).collect();
    assert_eq!(places, ["parms", "parms.a + 1 > 'x'", "b", "params.n == 'a'", "metrcs", "3"]);
    for source in
        ["nope + 1 > 2", "nope.a.b[0].c", "!nope", "size(nope) > 1", "nope ? 1 : 2", "nope.all(x, x.y)"]
    {
        assert_eq!(problem(source).1, "nope", "{source}");
    }
}

#[test]
fn places_count_in_bytes_and_survive_strings_comments_and_brackets() {
    for (source, place) in [
        ("'é' != 'ß' && params.ö1 == 1", None),
        ("\"é)\" == 'ß' && (params.n) == ((\"x(\"))", Some("(params.n) == ((\"x(\"))")),
        ("params.n == // the (first\n 'a'", Some("params.n == // the (first\n 'a'")),
        ("r'\\' + '''it's''' + params.n", Some("r'\\' + '''it's''' + params.n")),
        ("params.n == [- 3][0] && (params.n ) + -1.5 > 0", Some("(params.n ) + -1.5")),
        ("params.tags.all( t , ( t ) > 1 )", Some("( t ) > 1")),
        ("params.flag && - 1 == 'a'", Some("- 1 == 'a'")),
        ("size ( [1, 2].map(x, x) ) == 'b'", Some("size ( [1, 2].map(x, x) ) == 'b'")),
    ] {
        match place {
            Some(place) => assert_eq!(problem(source).1, place, "{source}"),
            None => assert!(Expression::parse(source).is_err(), "{source}"),
        }
    }
}

#[test]
fn results_are_held_against_what_is_wanted() {
    let wanted =
        |source: &str, wanted: &Type| Expression::parse(source).unwrap().check_as(&types(), wanted).problems;
    for (source, of) in [
        ("params.n > 1", Type::Bool),
        ("data.flag", Type::Bool),
        ("params.n", Type::Scalar),
        ("steps.gate.verdict", Type::Scalar),
        ("timestamp(time)", Type::String),
        ("params.tags", Type::list(Type::Dyn)),
        ("steps.train.metrics.auc", Type::Int),
        ("null", Type::Dyn),
    ] {
        assert_eq!(wanted(source, &of), [], "{source}");
    }
    for (source, of, message) in [
        ("params.n", Type::Bool, "`params.n` must be true or false, but is a whole number"),
        ("params.tags", Type::Scalar, "must be text, a number, or true or false, but is a list"),
        ("params", Type::Scalar, "but is params"),
        ("null", Type::Scalar, "but is null"),
        ("b'a'", Type::Scalar, "but is bytes"),
        ("params.region", Type::Number, "must be a number, but is text"),
    ] {
        let found = wanted(source, &of);
        assert_eq!(found.len(), 1, "{source}: {found:?}");
        assert!(found[0].message.contains(message), "{source}: {found:?}");
        assert_eq!((found[0].offset, found[0].length), (0, source.len()));
    }
    // What is not known because of a mistake is not complained of again.
    assert_eq!(wanted("params.nn", &Type::Bool).len(), 1);
}

#[test]
fn other_names_may_be_allowed() {
    let types = Types::new().with("data", Type::Dyn).with("subject", Type::String).with_others(Type::Scalar);
    let check = |source: &str| Expression::parse(source).unwrap().check(&types).problems.len();
    assert_eq!(check("region == 'eu' && data.rows > 3 && priority > 2 && urgent"), 0);
    assert_eq!(check("region.name == 'eu'"), 1);
    assert_eq!(check("subject == 3"), 1);
}

#[test]
fn the_check_is_bounded() {
    let regexes = "'a'.matches('\\\\w{99}{99}')||".repeat(50) + "true";
    let deep = "(".repeat(31) + "params.n" + &")".repeat(31) + &" + 1".repeat(58);
    let many = "params.q||".repeat(120) + "true";
    let lists = "[".repeat(30) + "1" + &"]".repeat(30);
    for source in [regexes, deep, many, lists] {
        let expression = Expression::parse(&source).unwrap_or_else(|e| panic!("{source}: {e}"));
        let started = Instant::now();
        expression.check(&types());
        assert!(started.elapsed() < Duration::from_secs(5), "{source} took {:?}", started.elapsed());
    }
}
