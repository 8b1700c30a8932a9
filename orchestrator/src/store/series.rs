//! The values of metrics over time, one row a metric of an attempt. They stay for the run's life. Must never happen here: a
//! value of a stale attempt, or more of them than [`Series`] keeps.

use std::collections::BTreeMap;

use refit_workflows::names::RunName;
use refit_workflows::series::Series;
use refit_workflows::wire::{MetricPoint, Report, SERIES_PAGE, SeriesView};

use super::database::{Transaction, sql};
use super::{ChangeError, Store, StoreError, to_json};

/// The most metrics of an attempt of which more than the latest value is kept.
const METRICS_MAX: usize = 100;

const KNOWN: &str = "SELECT name FROM metric_series WHERE run = $1 AND step = $2 AND epoch = $3";
const ONE: &str =
    "SELECT series FROM metric_series WHERE run = $1 AND step = $2 AND epoch = $3 AND name = $4";
const KEEP: &str =
    "INSERT INTO metric_series (run, step, epoch, attempt, name, series) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (run, step, epoch, name) DO UPDATE SET series = excluded.series";
const ALL: &str = "SELECT step, attempt, name, series FROM metric_series
    WHERE run = $1 AND ($2 = '' OR step = $2 OR substr(step, 1, length($2) + 1) = $2 || '[')
    ORDER BY step, epoch, name LIMIT $4 OFFSET $3";

impl Store {
    /// Adds the values of a report whose lease is the step's current one.
    pub(super) async fn keep_points(
        &self,
        tx: &mut Transaction,
        run: i64,
        report: &Report,
    ) -> Result<(), StoreError> {
        let mut by_name: BTreeMap<&str, Vec<&MetricPoint>> = BTreeMap::new();
        for point in &report.points {
            by_name.entry(&point.name).or_default().push(point);
        }
        if by_name.is_empty() {
            return Ok(());
        }
        let key = &report.key;
        let of = |text: &'static str| sql(text).bind(run).bind(&key.step).bind(key.epoch);
        let rows = tx.all(of(KNOWN)).await?;
        let mut known = rows.iter().map(|row| row.text("name")).collect::<Result<Vec<_>, _>>()?;
        for (name, points) in by_name {
            let mut series = Series::default();
            if known.iter().any(|known| known == name) {
                series = tx.one(of(ONE).bind(name)).await?.json("series")?;
            } else if known.len() >= METRICS_MAX {
                continue;
            } else {
                known.push(name.to_owned());
            }
            for point in points {
                series.take(point.index, point.step, point.value, point.at);
            }
            let keep = of(KEEP).bind(i64::from(report.attempt)).bind(name).bind(to_json(&series)?);
            tx.execute(keep).await?;
        }
        Ok(())
    }

    /// The series of a run's attempts, of one step (with its instances, when it has a matrix) or of all, in a fixed order: a page
    /// of them behind the first `after`.
    pub async fn series(
        &self,
        run: &RunName,
        step: Option<&str>,
        after: i64,
    ) -> Result<Vec<SeriesView>, ChangeError> {
        let (run, step) = (run.clone(), step.unwrap_or_default().to_owned());
        self.durably(move |store| {
            let (run, step) = (run.clone(), step.clone());
            async move {
                let mut tx = store.database().read().await?;
                let id = store.run_id(&mut tx, &run).await?;
                let rows =
                    tx.all(sql(ALL).bind(id).bind(&step).bind(after.max(0)).bind(SERIES_PAGE as i64)).await?;
                rows.iter()
                    .map(|row| {
                        let series: Series = row.json("series")?;
                        Ok(SeriesView {
                            step: row.text("step")?,
                            attempt: u32::try_from(row.int("attempt")?).unwrap_or_default(),
                            metric: row.text("name")?,
                            points: series.points(),
                        })
                    })
                    .collect()
            }
        })
        .await
    }
}
