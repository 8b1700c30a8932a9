//! `refit apply`: checks, packs, uploads what is missing, registers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use refit_workflows::definition::Sources;
use refit_workflows::digest::Digest;
use refit_workflows::wire::{Apply, WorkflowView};

use super::check;
use super::sources::{self, Source};
use crate::args::{ApplyArgs, Format};
use crate::bundle::Bundle;
use crate::client::Client;
use crate::exit::Exit;
use crate::render::{self, BOLD, DIM, GOOD, clean, count, paint};

/// The most digests asked about in one request (the server's own bound).
const ASKED_AT_ONCE: usize = 10_000;

/// What came of one workflow file.
#[derive(Debug)]
pub(crate) struct Applied {
    /// The workflow as the server has it now.
    pub(crate) view: WorkflowView,
    files: usize,
    bytes: u64,
    uploaded: usize,
}

/// Registers the workflows.
pub(crate) async fn run(args: ApplyArgs, client: &Client) -> anyhow::Result<Exit> {
    let Some(applied) = apply(&args.paths, client, args.output.format).await? else {
        return Ok(Exit::Definition);
    };
    let views: Vec<&WorkflowView> = applied.iter().map(|one| &one.view).collect();
    render::answer(args.output.format, &views, || applied.iter().map(Applied::line).collect())?;
    Ok(Exit::Ok)
}

/// Checks and registers the workflows these paths mean; none when a file has problems, which are told then.
pub(crate) async fn apply(
    paths: &[PathBuf],
    client: &Client,
    format: Format,
) -> anyhow::Result<Option<Vec<Applied>>> {
    let sources = sources::find(paths)?;
    if !check::passes(&sources, format)? {
        return Ok(None);
    }
    let mut packed: BTreeMap<PathBuf, (Bundle, usize)> = BTreeMap::new();
    let mut applied = Vec::new();
    for source in &sources {
        let folder = source.folder();
        let key = folder.canonicalize().with_context(|| format!("failed to read {}", folder.display()))?;
        if !packed.contains_key(&key) {
            let bundle = pack(folder).await?;
            let uploaded = upload(client, &bundle).await?;
            packed.insert(key.clone(), (bundle, uploaded));
        }
        let Some((bundle, uploaded)) = packed.get(&key) else { continue };
        names_are_packed(source, bundle)?;
        for workflow in &source.workflows {
            let Sources { main, used } = workflow.sources.clone();
            let request = Apply { text: main, used, bundle: Some(bundle.digest()) };
            let view = client
                .apply(&request)
                .await
                .with_context(|| format!("failed to apply {}", source.path.display()))?;
            for warning in &view.warnings {
                render::note(format!("{}: {}", source.path.display(), clean(warning)));
            }
            let (files, bytes) = (bundle.tree.files.len(), bundle.tree.bytes());
            applied.push(Applied { view, files, bytes, uploaded: *uploaded });
        }
    }
    Ok(Some(applied))
}

async fn pack(folder: &Path) -> anyhow::Result<Bundle> {
    let folder = folder.to_owned();
    tokio::task::spawn_blocking(move || Bundle::pack(&folder)).await.context("failed to pack the folder")?
}

/// A requirements file that is there but ignored would only fail on the worker.
fn names_are_packed(source: &Source, bundle: &Bundle) -> anyhow::Result<()> {
    let steps = source.workflows.iter().flat_map(|workflow| &workflow.steps);
    for step in steps {
        let Some(run) = step.verb.process() else { continue };
        if let Some(name) = run.requirements().filter(|name| !bundle.holds(name)) {
            anyhow::bail!(
                "failed to apply {}: step `{}` needs `{name}`, which .gitignore or .refitignore keeps out of the bundle",
                source.path.display(),
                step.name
            );
        }
    }
    Ok(())
}

/// Uploads what the server lacks, the tree last: a tree that is there means that its files are. Answers how many
/// files were sent.
async fn upload(client: &Client, bundle: &Bundle) -> anyhow::Result<usize> {
    let digests: Vec<Digest> = bundle.sources.keys().cloned().collect();
    let mut missing = Vec::new();
    for asked in digests.chunks(ASKED_AT_ONCE) {
        missing.extend(client.missing(asked).await?);
    }
    for digest in &missing {
        let Some(path) = bundle.sources.get(digest) else { continue };
        let failed = || format!("failed to upload {}", path.display());
        let file = tokio::fs::File::open(path).await.with_context(failed)?;
        client.put_blob(digest, file).await.with_context(failed)?;
    }
    client.put_blob(&bundle.digest(), bundle.tree.to_json()).await.context("failed to upload the bundle")?;
    Ok(missing.len())
}

impl Applied {
    /// In one line.
    pub(crate) fn line(&self) -> String {
        let view = &self.view;
        let done = if view.unchanged { paint(DIM, "unchanged") } else { paint(GOOD, "applied") };
        let mut line = format!(
            "{} {}  version {}  {done}",
            paint(GOOD, "✓"),
            paint(BOLD, clean(&view.workflow)),
            view.version
        );
        let size = render::bytes(self.bytes);
        let files = count(self.files as u64, "file");
        let _ =
            writeln!(line, "  {}", paint(DIM, format_args!("({files}, {size}; {} uploaded)", self.uploaded)));
        line
    }
}
