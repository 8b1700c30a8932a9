//! What is in a version of a model, brought here. Nothing is at its place before all of it is there and has its digest.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use refit_workflows::digest::Digest;
use refit_workflows::wire::{ArtifactKind, TREE_BYTES_MAX, Tree, VersionDetail, check_relative_path};
use sha2::{Digest as _, Sha256};

use crate::client::{Client, Download};

/// Brings a version to `path`: a file takes the place of one that is there, a folder must not be there yet.
pub(crate) async fn version(client: &Client, detail: &VersionDetail, path: &Path) -> anyhow::Result<()> {
    let (model, number) = (&detail.model, detail.version.version);
    let beside = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    fs::create_dir_all(beside).with_context(|| format!("failed to make the folder {}", beside.display()))?;
    let content = client.artifact(model, number).await?;
    match detail.version.kind {
        ArtifactKind::File => {
            ensure!(!path.is_dir(), "{} is a folder: name a file with -o", path.display());
            // Who may read it is for the one who fetches it to say (umask).
            let readable = fs::Permissions::from_mode(0o666);
            let file = tempfile::Builder::new().permissions(readable).tempfile_in(beside);
            let mut file = file.with_context(|| format!("failed to write into {}", beside.display()))?;
            receive(content, &detail.version.digest, detail.version.bytes, file.as_file_mut()).await?;
            file.persist(path).with_context(|| format!("failed to write {}", path.display()))?;
        }
        ArtifactKind::Folder => {
            ensure!(!path.exists(), "{} is there already: name another place with -o", path.display());
            let folder = tempfile::tempdir_in(beside);
            let folder = folder.with_context(|| format!("failed to write into {}", beside.display()))?;
            let mut tree = Vec::new();
            receive(content, &detail.version.digest, TREE_BYTES_MAX, &mut tree).await?;
            let tree: Tree = serde_json::from_slice(&tree).context("the list of its files cannot be read")?;
            let inside = folder.path().join("artifact");
            fs::create_dir(&inside).context("failed to make a folder")?;
            files(client, &tree, &inside).await?;
            fs::rename(&inside, path).with_context(|| format!("failed to write {}", path.display()))?;
        }
    }
    Ok(())
}

async fn files(client: &Client, tree: &Tree, folder: &Path) -> anyhow::Result<()> {
    for file in &tree.files {
        if let Err(wrong) = check_relative_path(&file.path) {
            bail!("a file cannot be written at its path: {wrong}");
        }
        let path = folder.join(&file.path);
        let failed = || format!("failed to write {}", file.path);
        fs::create_dir_all(path.parent().unwrap_or(folder)).with_context(failed)?;
        let mut written = File::create_new(&path).with_context(failed)?;
        receive(client.blob(&file.digest).await?, &file.digest, file.bytes, &mut written).await?;
        if file.executable {
            let mode = written.metadata().with_context(failed)?.permissions().mode();
            written.set_permissions(fs::Permissions::from_mode(mode | 0o111)).with_context(failed)?;
        }
    }
    Ok(())
}

/// Writes what comes as it comes, so many bytes at most.
async fn receive(
    mut content: Download,
    digest: &Digest,
    most: u64,
    to: &mut impl Write,
) -> anyhow::Result<()> {
    let (mut hash, mut received) = (Sha256::new(), 0);
    while let Some(chunk) = content.next().await? {
        received += chunk.len() as u64;
        ensure!(received <= most, "more than {most} bytes came: fetch it again");
        hash.update(&chunk);
        to.write_all(&chunk).context("failed to write what came")?;
    }
    let found = Digest::from_hash(&hash.finalize());
    ensure!(found == *digest, "what came has the digest {found}, not {digest}: fetch it again");
    Ok(())
}
