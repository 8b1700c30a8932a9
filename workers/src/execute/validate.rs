//! The verb `validate`: fetches what its checks need, has them made on a thread of their own, and hands over what they
//! came to. Must never happen here: a check (that is `crate::validate`), or a thread that goes on after the step has ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use refit_workflows::time::Timestamp;
use refit_workflows::wire::{
    ArtifactRef, DataReference, FAILING_ARTIFACT, Handed, Outcome, PROFILE_ARTIFACT, REPORT_ARTIFACT,
    ValidateOrder,
};

use super::process::TERM_GRACE;
use super::{Attempt, Came, interrupted};
use crate::data::profile::Profile;
use crate::held::EndingSignal;
use crate::outputs;
use crate::validate::{Findings, References, Task};

impl Attempt<'_> {
    /// Checks data.
    pub(super) async fn validate(&self, order: &ValidateOrder, mut ending: EndingSignal) -> Came {
        let stop = Arc::new(AtomicBool::new(false));
        let work = async {
            match self.check_data(order, &stop).await {
                Ok(outcome) => Came::Called(outcome),
                Err(reason) => {
                    self.log.say(&reason);
                    Came::CouldNotStart(reason)
                }
            }
        };
        let mut work = Box::pin(work);
        tokio::select! {
            came = &mut work => came,
            came = interrupted(&mut ending, self.deadline) => {
                stop.store(true, Ordering::Relaxed);
                // A thread looks at the sign with every batch of rows.
                tokio::select! {
                    _ = &mut work => {}
                    () = tokio::time::sleep(TERM_GRACE) => {}
                }
                came
            }
        }
    }

    async fn check_data(&self, order: &ValidateOrder, stop: &Arc<AtomicBool>) -> Result<Outcome, String> {
        let task = self.gather_data(order).await?;
        self.set_up.is_over();
        let stop = stop.clone();
        let checked = tokio::task::spawn_blocking(move || task.run(&stop)).await;
        let findings = checked.map_err(|panic| format!("failed to check the data: {panic}"))??;
        for line in findings.lines() {
            self.log.say(&line);
        }
        let artifacts = self.hand_over_findings(&findings).await?;
        let (outputs, metrics) = (findings.outputs(), findings.metrics());
        let handed = Handed { outputs, metrics, artifacts, evaluation: None };
        Ok(match findings.refusal() {
            Some(reason) => Outcome::Rejected { reason, handed },
            None => Outcome::Succeeded(handed),
        })
    }

    /// Lays out all data that is looked at.
    async fn gather_data(&self, order: &ValidateOrder) -> Result<Task, String> {
        self.lay_out_code().await?;
        let data = self.source(&order.data, order.format, "data").await?;
        let mut others = BTreeMap::new();
        for (index, check) in order.checks.iter().enumerate() {
            if let Some(other) = check.other_data() {
                others.insert(index, self.source(other, None, &format!("other-data-{}", index + 1)).await?);
            }
        }
        let references = References {
            previous: self.profile(order.references.previous.as_ref(), "previous").await?,
            champion: self.profile(order.references.champion.as_ref(), "champion").await?,
            row_counts: order.references.row_counts.clone(),
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
        let hidden = self.hidden_folders();
        Ok(Task { data, checks: order.checks.clone(), others, references, now, hidden })
    }

    async fn profile(
        &self,
        reference: Option<&DataReference>,
        name: &str,
    ) -> Result<Option<(String, Profile)>, String> {
        let Some(reference) = reference else { return Ok(None) };
        let path = self.place.control(&format!("{name}.json"));
        self.lay_out_data(&reference.profile, &path).await?;
        let read = std::fs::read(&path).map_err(|cause| cause.to_string());
        let profile = read.and_then(|bytes| Profile::parse(&bytes));
        let profile =
            profile.map_err(|why| format!("the profile of {} cannot be used: {why}", reference.run))?;
        Ok(Some((reference.run.to_string(), profile)))
    }

    async fn hand_over_findings(&self, findings: &Findings) -> Result<BTreeMap<String, ArtifactRef>, String> {
        let folder = self.place.control("findings");
        let files = [
            (PROFILE_ARTIFACT, "profile.json", Some(findings.profile_json())),
            (REPORT_ARTIFACT, "report.json", Some(findings.report_json())),
            (FAILING_ARTIFACT, "failing.jsonl", findings.failing_lines()),
        ];
        let failed = |cause: std::io::Error| format!("failed to write what the checks came to: {cause}");
        std::fs::create_dir(&folder).map_err(failed)?;
        let mut declared = BTreeMap::new();
        for (name, file, content) in files {
            if let Some(content) = content {
                std::fs::write(folder.join(file), content).map_err(failed)?;
                declared.insert(name.to_owned(), file.to_owned());
            }
        }
        let gathered = tokio::task::spawn_blocking(move || outputs::gather(&folder, &declared)).await;
        let gathered =
            gathered.map_err(|cause| format!("failed to read what the checks came to: {cause}"))??;
        let handed = self.tools.blobs.hand_over(&gathered.blobs).await;
        handed.map_err(|cause| format!("failed to hand over what the checks came to: {cause}"))?;
        Ok(gathered.artifacts)
    }
}
