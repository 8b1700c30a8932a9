//! Tables as they are read: types, what is missing, what is unreadable, and where it stands.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type, TimestampMillisecondType};
use arrow_array::{
    Array as _, ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array,
    Int8Array, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use proptest::prelude::*;
use refit_workflows::definition::DataFormat;

use super::*;

/// Writes a Parquet file with row groups of so many rows.
pub(crate) fn write_parquet(path: &Path, columns: Vec<(&str, ArrayRef)>, group: usize) {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, values)| (name, values, true)),
    );
    let batch = batch.unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
    let mut writer =
        ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn file(folder: &tempfile::TempDir, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

fn read(column: &str, kind: Option<Kind>) -> Read {
    Read { column: column.to_owned(), kind }
}

fn kinds(table: &Table) -> Vec<(&str, Option<Kind>)> {
    table.columns().iter().map(|column| (column.name.as_str(), column.kind)).collect()
}

/// All rows of one read, as text; `-` where a value is missing, `!` before one that is unreadable.
fn texts(table: &Table, read: Read) -> Vec<String> {
    let mut all = Vec::new();
    for rows in table.read(std::slice::from_ref(&read)).unwrap() {
        let rows = rows.unwrap();
        let cells = &rows.columns[0];
        assert_eq!(cells.values.len(), rows.count);
        let shown = arrow_cast::cast(&cells.values, &arrow_schema::DataType::Utf8).unwrap();
        for row in 0..rows.count {
            all.push(match cells.unreadable.iter().find(|(other, _)| *other == row) {
                Some((_, text)) => format!("!{text}"),
                None if cells.values.is_null(row) => "-".to_owned(),
                None => shown.as_string::<i32>().value(row).to_owned(),
            });
        }
    }
    all
}

#[test]
fn csv_types_are_told_from_the_head() {
    let folder = tempfile::tempdir().unwrap();
    let text = "\u{feff}id,age,ok,at,name,none\n1,3.5,true,2026-01-02T03:04:05Z,\"a, \"\"b\"\"\",\n2,,False,2026-01-02,,\n";
    let table = Table::open(&file(&folder, "a.csv", text), None).unwrap();
    let expected = [
        ("id", Some(Kind::Integer)),
        ("age", Some(Kind::Number)),
        ("ok", Some(Kind::Boolean)),
        ("at", Some(Kind::Timestamp)),
        ("name", Some(Kind::Text)),
        ("none", Some(Kind::Text)),
    ];
    assert_eq!(kinds(&table), expected);
    assert_eq!(table.row_count(), None);
    assert_eq!(texts(&table, read("age", None)), ["3.5", "-"]);
    assert_eq!(texts(&table, read("ok", None)), ["true", "false"]);
    assert_eq!(texts(&table, read("name", None)), ["a, \"b\"", "-"]);
    assert_eq!(texts(&table, read("at", None)), ["2026-01-02T03:04:05", "2026-01-02T00:00:00"]);
    assert_eq!(texts(&table, read("id", Some(Kind::Text))), ["1", "2"]);
}

#[test]
fn what_is_not_of_the_type_is_unreadable_and_not_missing() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = "x\n".to_owned() + &"7\n".repeat(20_000);
    text.push_str("n/a\n\"\"\n5.0\n5.5\n");
    let table = Table::open(&file(&folder, "late.csv", text), None).unwrap();
    assert_eq!(kinds(&table), [("x", Some(Kind::Integer))]);
    let reads = [read("x", None)];
    let all: Vec<Rows> = table.read(&reads).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(all.iter().map(|rows| rows.count).sum::<usize>(), 20_004);
    assert_eq!(all.iter().map(|rows| rows.columns[0].missing()).sum::<usize>(), 1);
    let last = all.into_iter().last().unwrap();
    let found: Vec<&str> = last.columns[0].unreadable.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(found, ["n/a", "5.5"]);
    let wrong = last.all_readable(&reads).unwrap_err().to_string();
    assert!(wrong.ends_with("late.csv, row 20001: `x` is `n/a`, not text"), "{wrong}");
    let reads = [read("x", Some(Kind::Number))];
    let last = table.read(&reads).unwrap().last().unwrap().unwrap();
    let wrong = last.all_readable(&reads).unwrap_err().to_string();
    assert!(wrong.ends_with("row 20001: `x` is `n/a`, not a number"), "{wrong}");
}

#[test]
fn json_lines_keep_their_types() {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"{"a": 1, "b": "x", "c": true, "d": "2026-01-02T03:04:05+02:00", "e": {"f": [1]}}

{"b": null, "a": 2.0, "g": 7}
{"a": "3", "b": 4, "c": 5}
"#;
    let table = Table::open(&file(&folder, "a.jsonl", text), None).unwrap();
    let expected = [
        ("a", Some(Kind::Text)),
        ("b", Some(Kind::Text)),
        ("c", Some(Kind::Text)),
        ("d", Some(Kind::Timestamp)),
        ("e", Some(Kind::Text)),
        ("g", Some(Kind::Integer)),
    ];
    assert_eq!(kinds(&table), expected);
    assert_eq!(texts(&table, read("a", Some(Kind::Number))), ["1.0", "2.0", "!3"]);
    assert_eq!(texts(&table, read("a", Some(Kind::Integer))), ["1", "2", "!3"]);
    assert_eq!(texts(&table, read("b", None)), ["x", "-", "4"]);
    assert_eq!(texts(&table, read("c", Some(Kind::Boolean))), ["true", "-", "!5"]);
    assert_eq!(texts(&table, read("d", None)), ["2026-01-02T01:04:05", "-", "-"]);
    assert_eq!(texts(&table, read("e", None)), [r#"{"f":[1]}"#, "-", "-"]);
}

#[test]
fn the_same_column_can_be_read_as_two_kinds() {
    let folder = tempfile::tempdir().unwrap();
    let csv = file(&folder, "a.csv", "code,x\n007,1\nx7,2\n");
    let json = file(&folder, "a.jsonl", "{\"code\": \"007\"}\n{\"code\": 7}\n");
    let parquet = folder.path().join("a.parquet");
    write_parquet(
        &parquet,
        vec![
            ("x", Arc::new(Int8Array::from(vec![1, 2]))),
            ("code", Arc::new(StringArray::from(vec!["007", "x7"]))),
        ],
        10,
    );
    for (path, second) in [(&csv, vec!["7", "!x7"]), (&json, vec!["!007", "7"]), (&parquet, vec!["7", "!x7"])]
    {
        let table = Table::open(path, None).unwrap();
        let reads = [read("code", Some(Kind::Text)), read("code", Some(Kind::Integer))];
        let rows = table.read(&reads).unwrap().next().unwrap().unwrap();
        assert_eq!(rows.columns[0].values.as_string::<i32>().value(0), "007");
        assert_eq!(rows.columns.len(), 2);
        assert_eq!(texts(&table, reads[1].clone()), second, "{}", path.display());
    }
}

#[test]
fn parquet_types_become_ours() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.parquet");
    let micros = TimestampMicrosecondArray::from(vec![Some(1_500_000), None]).with_timezone("+02:00");
    let decimals = Decimal128Array::from(vec![Some(12_345), None]).with_precision_and_scale(10, 2).unwrap();
    let words: DictionaryArray<arrow_array::types::Int8Type> = vec![Some("x"), None].into_iter().collect();
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1)]), None]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("small", Arc::new(Int8Array::from(vec![Some(-3), None]))),
        ("large", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None]))),
        ("float", Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(2.5)]))),
        ("decimal", Arc::new(decimals)),
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("day", Arc::new(Date32Array::from(vec![Some(1), None]))),
        ("at", Arc::new(micros)),
        ("word", Arc::new(words)),
        ("list", Arc::new(list)),
    ];
    write_parquet(&path, columns, 1);
    let table = Table::open(&path, None).unwrap();
    assert_eq!(table.row_count(), Some(2));
    let shown = |name: &str| texts(&table, read(name, None));
    assert_eq!(shown("small"), ["-3", "-"]);
    assert_eq!(shown("large"), ["1.8446744073709552e19", "-"]);
    assert_eq!(shown("float"), ["-", "2.5"], "NaN is missing");
    assert_eq!(shown("decimal"), ["123.45", "-"]);
    assert_eq!(shown("flag"), ["true", "-"]);
    assert_eq!(shown("day"), ["1970-01-02T00:00:00", "-"]);
    assert_eq!(shown("at"), ["1970-01-01T00:00:01.500", "-"]);
    assert_eq!(shown("word"), ["x", "-"]);
    assert_eq!(table.column("list").unwrap().kind, None);
    let nested = table.read(&[read("list", Some(Kind::Number))]).err().unwrap().to_string();
    assert!(nested.contains("`list` holds nested"), "{nested}");
    let rows = table.read(&[read("list", None)]).unwrap().next().unwrap().unwrap();
    assert_eq!(rows.columns[0].missing(), 1);
    assert_eq!(texts(&table, read("float", Some(Kind::Integer))), ["-", "!2.5"]);
    assert_eq!(texts(&table, read("flag", Some(Kind::Number))), ["!true", "-"]);
    assert_eq!(texts(&table, read("small", Some(Kind::Text))), ["-3", "-"]);
    assert_eq!(table.missing_count("small"), Some(1), "the footer says it");
    assert_eq!(table.missing_count("float"), None, "a footer knows nothing of NaN");
}

#[test]
fn a_folder_is_one_table() {
    let folder = tempfile::tempdir().unwrap();
    file(&folder, "b.csv", "x,y\n3,4\n");
    file(&folder, "a.csv", "y,x\n2,1.5\n");
    file(&folder, "_SUCCESS", "");
    file(&folder, ".c.csv", "no\n");
    let table = Table::open(folder.path(), None).unwrap();
    assert_eq!(texts(&table, read("x", None)), ["1.5", "3.0"], "by name, in the order of the files' names");
    file(&folder, "c.csv", "x\n3\n");
    let wrong = Table::open(folder.path(), None).unwrap_err().to_string();
    assert!(wrong.contains("c.csv is not like the files before it: it has no column `y`"), "{wrong}");
    file(&folder, "c.csv", "x,z,y\n");
    let wrong = Table::open(folder.path(), None).unwrap_err().to_string();
    assert!(wrong.contains("it has a column `z` that they have not"), "{wrong}");
    file(&folder, "d.jsonl", "{}");
    let wrong = Table::open(folder.path(), None).unwrap_err().to_string();
    assert!(wrong.contains("say which one with `format`"), "{wrong}");
    let empty = tempfile::tempdir().unwrap();
    let wrong = Table::open(empty.path(), None).unwrap_err().to_string();
    assert!(wrong.contains("holds no table"), "{wrong}");
}

#[test]
fn whatever_is_wrong_names_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = |name: &str, bytes: &[u8]| {
        let path = file(&folder, name, bytes);
        let read = || -> Result<(), TableError> {
            let table = Table::open(&path, None)?;
            let reads: Vec<Read> = table.columns().iter().map(|column| read(&column.name, None)).collect();
            table.read(&reads)?.try_for_each(|rows| rows.map(drop))
        };
        read().unwrap_err().to_string()
    };
    let long_row = "a,b\n".to_owned() + &"1,2\n".repeat(10_001) + "1\n";
    let twice = b"{\"a\": 1, \"a\": 2}\n".as_slice();
    let open = [b"a\n\"".as_slice(), &vec![b'x'; 17 << 20]].concat();
    let endless = [b"{\"a\": \"".as_slice(), &vec![b'x'; 17 << 20]].concat();
    let cases: [(&str, &[u8], &str); 12] = [
        ("a.csv", b"a,b\n1,2\n3\n", "cannot be read at row 2: it has 1 fields (line 3), the header 2"),
        ("a.csv", long_row.as_bytes(), "at row 10002: it has 1 fields"),
        ("a.csv", b"", "begins with the names of its columns"),
        ("a.csv", b"a,a\n", "names the column `a` twice"),
        ("a.csv", b"\xff\n", "its header is not UTF-8"),
        ("a.csv", &open, "at row 1: it is larger than 16 MiB"),
        ("a.jsonl", b"{\"a\": 1}\n[1]\n", "at row 2: "),
        ("a.jsonl", b"{\"a\": 1}\n{\"a\": 1} x\n", "at row 2: trailing characters"),
        ("a.jsonl", twice, "at row 1: the key `a` is there twice"),
        ("a.jsonl", &endless, "at row 1: it is larger than 16 MiB"),
        ("a.parquet", b"PAR1 no PAR1", "cannot be read: "),
        ("a.txt", b"", "give `format: csv`"),
    ];
    for (name, bytes, expected) in cases {
        let found = wrong(name, bytes);
        assert!(found.contains(expected), "{found}\n{expected}");
    }
    let path = file(&folder, "a.csv", "customer\n1\n");
    let table = Table::open(&path, Some(DataFormat::Csv)).unwrap();
    let missing = table.read(&[read("custmer", None)]).err().unwrap().to_string();
    assert!(missing.ends_with("has no column `custmer`; did you mean `customer`?"), "{missing}");
    let gone = Table::open(&folder.path().join("gone.csv"), None).unwrap_err().to_string();
    assert!(gone.starts_with("failed to open"), "{gone}");
}

#[test]
fn bytes_that_are_no_text_are_unreadable() {
    let folder = tempfile::tempdir().unwrap();
    let table = Table::open(&file(&folder, "a.csv", b"a\nx\n\xff\n"), None).unwrap();
    assert_eq!(texts(&table, read("a", None)), ["x", "!\u{fffd}"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// What three formats hold is read alike from each.
    #[test]
    fn the_formats_agree(values in prop::collection::vec(prop::option::of((-1e9..1e9f64, any::<i32>(), "[a-z ,\"é]{1,5}")), 1..300)) {
        let folder = tempfile::tempdir().unwrap();
        let (mut csv, mut json) = ("n,i,t\n".to_owned(), String::new());
        for value in &values {
            match value {
                Some((n, i, t)) => {
                    csv.push_str(&format!("{n},{i},\"{}\"\n", t.replace('"', "\"\"")));
                    json.push_str(&format!("{}\n", serde_json::json!({ "n": n, "i": i, "t": t })));
                }
                None => {
                    csv.push_str(",,\n");
                    json.push_str("{}\n");
                }
            }
        }
        let parquet = folder.path().join("a.parquet");
        let column = values.iter();
        write_parquet(&parquet, vec![
            ("n", Arc::new(column.clone().map(|v| v.as_ref().map(|v| v.0)).collect::<Float64Array>())),
            ("i", Arc::new(column.clone().map(|v| v.as_ref().map(|v| i64::from(v.1))).collect::<arrow_array::Int64Array>())),
            ("t", Arc::new(column.map(|v| v.as_ref().map(|v| v.2.as_str())).collect::<StringArray>())),
        ], 64);
        let kinds = [("n", Kind::Number), ("i", Kind::Integer), ("t", Kind::Text)];
        let reads: Vec<Read> = kinds.iter().map(|(name, kind)| read(name, Some(*kind))).collect();
        for path in [file(&folder, "a.csv", csv), file(&folder, "a.jsonl", json), parquet] {
            let table = Table::open(&path, None).unwrap();
            let mut row = 0;
            // A file without a single object names no columns.
            if table.columns().is_empty() { continue; }
            for rows in table.read(&reads).unwrap() {
                let rows = rows.unwrap().all_readable(&reads).unwrap();
                prop_assert_eq!(rows.first, row as u64 + 1);
                for at in 0..rows.count {
                    let values = &values[row];
                    let n = rows.columns[0].values.as_primitive::<Float64Type>();
                    let i = rows.columns[1].values.as_primitive::<Int64Type>();
                    let t = rows.columns[2].values.as_string::<i32>();
                    let found = n.is_valid(at).then(|| n.value(at));
                    prop_assert_eq!(found.is_some(), values.is_some());
                    // A number in JSON may be read as the neighbour of the nearest f64.
                    let off = found.zip(values.as_ref()).map_or(0.0, |(found, values)| (found / values.0 - 1.0).abs());
                    prop_assert!(off <= 4.0 * f64::EPSILON, "{found:?} {values:?}");
                    prop_assert_eq!(i.is_valid(at).then(|| i.value(at)), values.as_ref().map(|v| i64::from(v.1)));
                    prop_assert_eq!(t.is_valid(at).then(|| t.value(at)), values.as_ref().map(|v| v.2.as_str()));
                    row += 1;
                }
            }
            prop_assert_eq!(row, values.len());
        }
    }
}

#[test]
fn times_before_the_epoch_round_down() {
    let folder = tempfile::tempdir().unwrap();
    let table =
        Table::open(&file(&folder, "a.csv", "at\n1969-12-31T23:59:59.9995Z\n20260102\n"), None).unwrap();
    let reads = [read("at", Some(Kind::Timestamp))];
    let rows = table.read(&reads).unwrap().next().unwrap().unwrap();
    assert_eq!(rows.columns[0].values.as_primitive::<TimestampMillisecondType>().value(0), -1);
    assert_eq!(rows.columns[0].unreadable, [(1, "20260102".to_owned())]);
}
