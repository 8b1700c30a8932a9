//! How findings look: a line each, and under it what to do.

use std::fmt::Write as _;

use refit_orchestrator::doctor::{Finding, Verdict};

use super::{BAD, BOLD, DIM, GOOD, WARN, clean, count, paint, wrap};

/// Findings, and how many are not as they should be.
pub(crate) fn list(findings: &[Finding]) -> String {
    let mut text = String::new();
    let width = findings.iter().map(|finding| finding.check.chars().count()).max().unwrap_or(0);
    for finding in findings {
        let (word, style) = match finding.state {
            Verdict::Ok => ("ok  ", GOOD),
            Verdict::Warn => ("warn", WARN),
            Verdict::Fail => ("fail", BAD),
        };
        let check = clean(&finding.check);
        let _ = writeln!(text, "{}  {check:<width$}  {}", paint(style, word), clean(&finding.found));
        if let Some(todo) = &finding.todo {
            let _ = write!(text, "{}", paint(DIM, wrap(&format!("→ {todo}"), width + 8)));
        }
    }
    let of = |verdict| findings.iter().filter(|finding| finding.state == verdict).count() as u64;
    let (warned, failed) = (of(Verdict::Warn), of(Verdict::Fail));
    let summary = match (warned, failed) {
        (0, 0) => "everything is as it should be".to_owned(),
        (warned, 0) => format!("it works, with {}", count(warned, "warning")),
        (0, failed) => format!("{} failed", count(failed, "check")),
        (warned, failed) => format!("{} failed, {}", count(failed, "check"), count(warned, "warning")),
    };
    let _ = writeln!(text, "\n{}", paint(BOLD, summary));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::plain;

    #[test]
    fn what_fails_comes_with_what_to_do() {
        let findings =
            [Finding::ok("disk", "42 GiB free"), Finding::fail("database", "out of reach", "start it")];
        let text = plain(&list(&findings));
        assert!(text.contains("ok    disk      42 GiB free\n"), "{text}");
        assert!(text.contains("fail  database  out of reach\n                → start it\n"), "{text}");
        assert!(text.ends_with("\n1 check failed\n"), "{text}");
    }
}
