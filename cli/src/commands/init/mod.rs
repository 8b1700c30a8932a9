//! `refit init`: writes a workflow to start from, with its scripts and tests, that runs as it stands. Must never happen here:
//! a file of somebody else's overwritten, or half of the files written because one was in the way.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use refit_workflows::names::check_name;
use serde::Serialize;

use super::schema::{self, TEST_SCHEMA, WORKFLOW_SCHEMA};
use super::sources;
use crate::args::{InitArgs, SchemaOf};
use crate::exit::{Exit, Usage};
use crate::render::{self, BOLD, DIM, GOOD, clean, paint};

/// What the templates call the workflow; its own name takes the place of these words.
const PLACEHOLDER: &str = "my-model";

/// File name, text, and what it is.
const FILES: [(&str, &str, &str); 6] = [
    ("workflow.yaml", include_str!("workflow.yaml"), "what starts a run, its steps, and the gate"),
    ("train.py", include_str!("train.py"), "trains a candidate"),
    ("evaluate.py", include_str!("evaluate.py"), "judges it, beside the champion"),
    ("workflow.test.yaml", include_str!("workflow.test.yaml"), "what the workflow is expected to do"),
    ("README.md", include_str!("README.md"), "what to type, and which file is what"),
    (".gitignore", include_str!("gitignore"), "keeps the data of `refit up` out of git"),
];

/// What the editor headers of the workflow and its tests name; the texts are those of `refit schema`.
const SCHEMAS: [(&str, SchemaOf, &str); 2] = [
    (
        WORKFLOW_SCHEMA,
        SchemaOf::Workflow,
        "what your editor completes and checks with; no part of the bundle",
    ),
    (TEST_SCHEMA, SchemaOf::Test, "the same for the tests"),
];

/// What was written.
#[derive(Debug, Serialize)]
struct Written {
    workflow: String,
    folder: String,
    files: Vec<&'static str>,
}

/// Writes the files and says what to type next.
pub(crate) fn run(args: &InitArgs) -> anyhow::Result<Exit> {
    let (folder, workflow) = match &args.name {
        Some(name) => (PathBuf::from(name), name.clone()),
        None => (PathBuf::from("."), name_of_this_folder()?),
    };
    if args.name.is_none() {
        refuse_beside_others(&folder)?;
    }
    let in_the_way: Vec<String> = names()
        .map(|(name, _)| folder.join(name))
        .filter(|path| path.symlink_metadata().is_ok())
        .map(|path| shown(&path))
        .collect();
    if !in_the_way.is_empty() {
        let files = in_the_way.join(", ");
        return Err(Usage(format!(
            "nothing was written, because these are there already: {files}; move them, or name another folder"
        ))
        .into());
    }
    let failed = |path: &Path| format!("failed to write {}", shown(path));
    std::fs::create_dir_all(&folder).with_context(|| failed(&folder))?;
    let texts = FILES.map(|(name, text, _)| (name, text.replace(PLACEHOLDER, &workflow)));
    let schemas = SCHEMAS.map(|(name, of, _)| schema::text(of).map(|text| (name, text)));
    let schemas: Vec<(&str, String)> = schemas.into_iter().collect::<Result<_, _>>()?;
    for (name, text) in texts.into_iter().chain(schemas) {
        let path = folder.join(name);
        write_new(&path, &text).with_context(|| failed(&path))?;
    }
    let files = names().map(|(name, _)| name).collect();
    let written = Written { workflow, folder: shown(&folder), files };
    render::answer(args.output.format, &written, || describe(&written))?;
    Ok(Exit::Ok)
}

/// Every file that is written, and what it is.
fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    let files = FILES.into_iter().map(|(name, _, what)| (name, what));
    files.chain(SCHEMAS.into_iter().map(|(name, _, what)| (name, what)))
}

/// The name of the current folder where a workflow may have it.
fn name_of_this_folder() -> anyhow::Result<String> {
    let folder = std::env::current_dir().context("failed to find the current folder")?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(if check_name(&name).is_ok() { name } else { PLACEHOLDER.to_owned() })
}

/// Without a name the files go where one is: not into a folder that is a workflow's already.
fn refuse_beside_others(folder: &Path) -> anyhow::Result<()> {
    let others = sources::workflow_files(folder)?;
    if others.is_empty() {
        return Ok(());
    }
    let others: Vec<String> = others.iter().map(|path| shown(path)).collect();
    let others = others.join(", ");
    Err(Usage(format!("this folder has a workflow already: {others}; `refit init NAME` makes a folder"))
        .into())
}

/// Writes a file that is not there yet: one that appeared meanwhile is somebody's, too.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())
}

/// The path without the `./` of the current folder.
fn shown(path: &Path) -> String {
    let bare = path.strip_prefix("./").unwrap_or(path);
    let bare = if bare.as_os_str().is_empty() { Path::new(".") } else { bare };
    bare.display().to_string()
}

fn describe(written: &Written) -> String {
    let mut text = format!("{} workflow {}\n\n", paint(GOOD, "✓"), paint(BOLD, clean(&written.workflow)));
    for (name, what) in names() {
        let path = shown(&Path::new(&written.folder).join(name));
        let width = written.folder.len() + 24;
        text.push_str(&format!("  {:<width$}{}\n", clean(&path), paint(DIM, what)));
    }
    let begin = if written.folder == "." { String::new() } else { format!("cd {} && ", written.folder) };
    text.push_str(&format!(
        "\nNext:\n  {begin}refit test\n  refit up\n  refit run start {} --wait    {}\n",
        written.workflow,
        paint(DIM, "in another terminal")
    ));
    text
}

#[cfg(test)]
mod tests {
    use refit_workflows::definition::Workflow;

    use super::*;

    #[test]
    fn the_templates_make_a_sound_workflow_of_any_name() {
        for name in ["my-model", "x", "0-fraud_model"] {
            let (_, text, _) = FILES[0];
            let workflow = Workflow::parse(&text.replace(PLACEHOLDER, name)).unwrap();
            assert_eq!((workflow.name.as_str(), workflow.model.as_deref()), (name, Some(name)));
            assert!(text.starts_with("# yaml-language-server: $schema=./workflow.schema.json\n"));
            assert!(FILES[3].1.starts_with("# yaml-language-server: $schema=./test.schema.json\n"));
        }
    }
}
