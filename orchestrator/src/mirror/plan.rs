//! What is to be done about a model's aliases in MLflow, by what they ought to be, what was left there and what is there now.
//! Pure. Must never happen here: a request, or a look at a clock.

use std::collections::BTreeMap;

use crate::store::{KnownVersion, WantedModel};

/// An alias that is to be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) alias: String,
    /// Ours.
    pub(super) version: i64,
    /// MLflow's.
    pub(super) number: i64,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) moves: Vec<Move>,
    /// Aliases that somebody else has moved or taken out, in words.
    pub(super) foreign: Vec<String>,
    /// Aliases whose version is not there yet.
    pub(super) waiting: bool,
}

/// MLflow keeps these for itself, in any case of letters: `latest`, and `v` with digits.
pub(super) fn is_reserved(alias: &str) -> bool {
    let digits = alias.strip_prefix(['v', 'V']);
    alias.eq_ignore_ascii_case("latest")
        || digits.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What is to be done so that every alias is where it ought to be. Aliases that only MLflow has are nobody's business here.
pub(super) fn plan(wanted: &WantedModel, seen: &BTreeMap<String, i64>) -> Plan {
    let mut plan = Plan::default();
    for at in wanted.aliases.iter().filter(|at| !is_reserved(&at.alias)) {
        let there = seen.get(&at.alias).copied();
        let ours = [wanted.left.get(&at.alias).copied(), wanted.intended.get(&at.alias).copied(), at.number];
        // Whatever was never there has not been moved by anybody.
        let is_known = wanted.left.contains_key(&at.alias);
        if is_known && !ours.iter().any(|ours| ours.is_some() && *ours == there) {
            plan.foreign.push(match there {
                Some(there) => format!("{} was moved to its version {there}", at.alias),
                None => format!("{} was taken out", at.alias),
            });
        }
        match at.number {
            Some(number) if there != Some(number) => {
                plan.moves.push(Move { alias: at.alias.clone(), version: at.version, number });
            }
            Some(_) => {}
            None => plan.waiting = true,
        }
    }
    plan
}

/// The versions that ought to be there, by what is `known`, and are not among those `seen` (number → evidence). What lies below
/// `down_to` was not looked at.
pub(super) fn gone(
    known: &BTreeMap<i64, KnownVersion>,
    seen: &BTreeMap<i64, Option<String>>,
    down_to: i64,
) -> Vec<i64> {
    let is_there = |known: &KnownVersion| {
        let evidence = seen.get(&known.number).and_then(Option::as_deref);
        known.number < down_to || evidence == Some(known.evidence.as_str())
    };
    known.iter().filter(|(_, known)| !is_there(known)).map(|(version, _)| *version).collect()
}

#[cfg(test)]
mod tests {
    use refit_workflows::digest::Digest;

    use super::*;
    use crate::store::WantedAlias;

    fn map(pairs: &[(&str, i64)]) -> BTreeMap<String, i64> {
        pairs.iter().map(|(alias, number)| ((*alias).to_owned(), *number)).collect()
    }

    fn wanted(number: Option<i64>, left: &[(&str, i64)], intended: &[(&str, i64)]) -> WantedModel {
        let aliases = vec![WantedAlias { alias: "champion".to_owned(), version: 3, number }];
        WantedModel { aliases, left: map(left), intended: map(intended), ..WantedModel::default() }
    }

    #[test]
    fn an_alias_moves_when_it_is_elsewhere_and_who_moved_it_is_told() {
        let moved = vec![Move { alias: "champion".to_owned(), version: 3, number: 7 }];
        for (what, wanted, seen, moves, foreign) in [
            ("it is there", wanted(Some(7), &[("champion", 7)], &[]), map(&[("champion", 7)]), false, None),
            ("it is new", wanted(Some(7), &[], &[]), map(&[]), true, None),
            ("the model had one before us", wanted(Some(7), &[], &[]), map(&[("champion", 1)]), true, None),
            ("we moved on", wanted(Some(7), &[("champion", 6)], &[]), map(&[("champion", 6)]), true, None),
            (
                "it was moved, and that was not heard",
                wanted(Some(7), &[("champion", 5)], &[("champion", 6)]),
                map(&[("champion", 6)]),
                true,
                None,
            ),
            (
                "the move before the crash was this one",
                wanted(Some(7), &[("champion", 6)], &[("champion", 7)]),
                map(&[("champion", 7)]),
                false,
                None,
            ),
            (
                "somebody else moved it",
                wanted(Some(7), &[("champion", 7)], &[]),
                map(&[("champion", 2)]),
                true,
                Some("champion was moved to its version 2"),
            ),
            (
                "somebody else moved it while we moved on",
                wanted(Some(7), &[("champion", 6)], &[("champion", 7)]),
                map(&[("champion", 2)]),
                true,
                Some("champion was moved to its version 2"),
            ),
            (
                "somebody else took it out",
                wanted(Some(7), &[("champion", 7)], &[]),
                map(&[("other", 7)]),
                true,
                Some("champion was taken out"),
            ),
        ] {
            let plan = plan(&wanted, &seen);
            assert_eq!(plan.moves, if moves { moved.clone() } else { Vec::new() }, "{what}");
            assert_eq!(plan.foreign.first().map(String::as_str), foreign, "{what}");
            assert!(!plan.waiting, "{what}");
        }
    }

    #[test]
    fn an_alias_waits_for_its_version_and_one_that_mlflow_reserves_is_left_out() {
        let mut waiting = wanted(None, &[], &[]);
        assert_eq!(plan(&waiting, &map(&[])), Plan { waiting: true, ..Plan::default() });
        waiting.aliases[0].alias = "latest".to_owned();
        assert_eq!(plan(&waiting, &map(&[])), Plan::default());
        for (alias, reserved) in
            [("latest", true), ("v3", true), ("v", false), ("v3a", false), ("live", false)]
        {
            assert_eq!(is_reserved(alias), reserved, "{alias}");
        }
    }

    #[test]
    fn a_version_is_gone_when_it_would_have_been_seen() {
        let evidence = |version: i64| Digest::of(version.to_string().as_bytes());
        let known = |(version, number)| (version, KnownVersion { number, evidence: evidence(version) });
        let known = BTreeMap::from([(1, 4), (2, 5), (3, 9)].map(known));
        let seen = |numbers: &[(i64, i64)]| -> BTreeMap<i64, Option<String>> {
            let of = |(number, version): &(i64, i64)| (*number, Some(evidence(*version).to_string()));
            numbers.iter().map(of).chain([(11, None)]).collect()
        };
        assert!(gone(&known, &seen(&[(4, 1), (5, 2), (9, 3)]), 0).is_empty());
        assert_eq!(gone(&known, &seen(&[(4, 1), (9, 3)]), 0), [2]);
        assert_eq!(gone(&known, &seen(&[(9, 3)]), 5), [2], "4 was not looked at");
        assert_eq!(gone(&known, &seen(&[(4, 1), (5, 2), (9, 7)]), 0), [3], "somebody else's has its number");
    }
}
