//! The results as JUnit XML, which every CI system reads.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::CaseResult;

/// Writes the results of all files.
///
/// # Errors
/// The file cannot be written.
pub(super) fn write(path: &Path, results: &[CaseResult]) -> anyhow::Result<()> {
    let mut report = Report::new("refit test");
    let mut suites: Vec<TestSuite> = Vec::new();
    for result in results {
        if suites.last().is_none_or(|suite| suite.name.as_str() != result.file) {
            suites.push(TestSuite::new(result.file.as_str()));
        }
        let mut status = if result.passed() {
            TestCaseStatus::success()
        } else {
            TestCaseStatus::non_success(NonSuccessKind::Failure)
        };
        if !result.passed() {
            status.set_message(result.headline());
            status.set_description(result.differences().join("\n"));
        }
        let mut case = TestCase::new(result.case.as_str(), status);
        case.set_classname(result.file.as_str());
        case.set_time(Duration::from_secs_f64(result.milliseconds / 1000.0));
        if let Some(suite) = suites.last_mut() {
            suite.add_test_case(case);
        }
    }
    report.add_test_suites(suites);
    let file = std::fs::File::create(path).with_context(|| format!("failed to write {}", path.display()))?;
    report.serialize(file).with_context(|| format!("failed to write {}", path.display()))
}
