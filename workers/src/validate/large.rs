//! A large table: what a profile of it costs beside the bare reading of the same file, and how much memory it takes. The long
//! version has ten million rows.

use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::tests::task;
use super::{Findings, Task};

/// The rows of a batch that is written.
const BATCH: usize = 10_000;
const MEMORY_MAX: u64 = 300_000_000;
/// The longest it may take, in times of the bare reading.
const RATIO_MAX: f64 = 2.0;

/// A well-mixed number of a row (the finaliser of MurmurHash3).
fn mixed(row: u64) -> u64 {
    let row = (row ^ (row >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let row = (row ^ (row >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    row ^ (row >> 33)
}

/// Six columns: a number, a price with gaps, a small whole number, a country, a flag and a time.
fn batch(first: usize) -> RecordBatch {
    let rows = || (first..first + BATCH).map(|row| mixed(row as u64));
    let countries = ["de", "fr", "it", "es", "pl", "nl", "at"];
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("score", Arc::new(rows().map(|it| it as f64 / u64::MAX as f64).collect::<Float64Array>())),
        (
            "price",
            Arc::new(
                rows()
                    .map(|it| (it % 50 != 0).then_some((it % 100_000) as f64 / 100.0))
                    .collect::<Float64Array>(),
            ),
        ),
        ("age", Arc::new(rows().map(|it| (it % 80) as i64 + 18).collect::<Int64Array>())),
        ("country", Arc::new(rows().map(|it| Some(countries[(it % 7) as usize])).collect::<StringArray>())),
        ("active", Arc::new(rows().map(|it| Some(it % 3 == 0)).collect::<BooleanArray>())),
        (
            "at",
            Arc::new(
                rows()
                    .map(|it| 1_760_000_000_000 + (it % 10_000_000_000) as i64)
                    .map(Some)
                    .collect::<TimestampMillisecondArray>(),
            ),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, values)| (name, values, true)))
        .unwrap()
}

fn write(path: &Path, rows: usize) {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(500_000))
        .build();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch(0).schema(), Some(properties)).unwrap();
    (0..rows / BATCH).for_each(|at| writer.write(&batch(at * BATCH)).unwrap());
    writer.close().unwrap();
}

/// The most memory this process has had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

/// What the bare reading takes.
fn bare(path: &Path) -> Duration {
    let begun = Instant::now();
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    for batch in reader.with_batch_size(8192).build().unwrap() {
        black_box(batch.unwrap().num_rows());
    }
    begun.elapsed()
}

fn checked(task: &Task) -> (Duration, Findings) {
    let begun = Instant::now();
    let findings = task.run(&AtomicBool::new(false)).unwrap();
    (begun.elapsed(), findings)
}

fn median(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[took.len() / 2]
}

#[test]
fn a_large_table_is_profiled_in_one_pass_with_little_memory() {
    let long = std::env::var_os("REFIT_TEST_SOAK").is_some();
    let rows = if long { 10_000_000 } else { 200_000 };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.parquet");
    write(&path, rows);

    let yaml = "- { column: score, mean: { min: 0.49, max: 0.51 } }\n- { column: price, quantile: { at: 50%, min: 490, max: \
                510 } }\n- { column: age, between: [18, 97] }\n- { column: country, constant: false }\n- { label_share: { \
                column: active, value: true, min: 33%, max: 34% } }\n- { column: at, fresh: { within: 30d } }";
    let task = task(folder.path(), "data.parquet", yaml);
    // In turns, so that what else the machine does meets both.
    let turns = (0..if long { 5 } else { 1 }).map(|_| (bare(&path), checked(&task)));
    let (bare, checked): (Vec<Duration>, Vec<(Duration, Findings)>) = turns.unzip();
    let (checked, mut findings): (Vec<Duration>, Vec<Findings>) = checked.into_iter().unzip();
    let (bare, checked, findings) = (median(bare), median(checked), findings.remove(0));

    assert_eq!((findings.rows, findings.refusal()), (rows as u64, None), "{:#?}", findings.lines());
    assert_eq!(findings.profile.columns.len(), 6);
    assert!(
        findings.profile_json().len() < 200_000,
        "a profile is small whatever its data: {}",
        findings.profile_json().len()
    );
    let ratio = checked.as_secs_f64() / bare.as_secs_f64();
    println!(
        "{rows} rows: read in {bare:?}, checked in {checked:?} ({ratio:.2} times), peak {} bytes",
        peak()
    );
    assert!(!long || ratio < RATIO_MAX, "{ratio} times");
    assert!(!long || peak() < MEMORY_MAX, "{} bytes", peak());
}
