//! Packs a workflow's folder as a bundle: which files belong to it, and their digests. Must never follow a link out
//! of the folder, and never pack more than the bounds allow. Sends nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use ignore::WalkBuilder;
use refit_workflows::digest::Digest;
use refit_workflows::wire::{Tree, TreeFile, check_relative_path};
use sha2::{Digest as _, Sha256};

use crate::commands::{STEP_SCHEMA, TEST_SCHEMA, WORKFLOW_SCHEMA};

/// The most files a bundle may have.
const FILES_MAX: usize = 10_000;
/// The most its files may weigh together, in bytes.
const BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Folders and files that are never code. A schema is for editors: a newer one makes no other version of a workflow.
const NEVER: [&str; 7] =
    [".refit", ".git", "__pycache__", ".venv", WORKFLOW_SCHEMA, STEP_SCHEMA, TEST_SCHEMA];

/// How much may be packed.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    files: usize,
    bytes: u64,
}

/// A packed folder.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    /// What is in it.
    pub(crate) tree: Tree,
    /// Where the bytes of each digest are found.
    pub(crate) sources: BTreeMap<Digest, PathBuf>,
}

impl Bundle {
    /// Packs a folder: everything in it but what `.gitignore` and `.refitignore` name, hidden files, caches and
    /// the schemas for editors.
    /// Equal folders give equal bundles. Reads every file; call it where blocking is allowed.
    ///
    /// # Errors
    /// A file cannot be read, a link leads out of the folder, a name is not portable, or the bounds are exceeded.
    pub(crate) fn pack(folder: &Path) -> anyhow::Result<Self> {
        Self::pack_within(folder, Bounds { files: FILES_MAX, bytes: BYTES_MAX })
    }

    fn pack_within(folder: &Path, bounds: Bounds) -> anyhow::Result<Self> {
        let failed = || format!("failed to pack {}", folder.display());
        let root = folder.canonicalize().with_context(failed)?;
        let mut bundle = Self { tree: Tree::default(), sources: BTreeMap::new() };
        let mut total = 0_u64;
        for entry in walk(&root).build() {
            let entry = entry.with_context(failed)?;
            let path = entry.path();
            if entry.path_is_symlink() {
                stays_inside(path, &root).with_context(failed)?;
            }
            let about = std::fs::metadata(path).with_context(failed)?;
            if about.is_dir() {
                continue;
            }
            let name = portable_name(path, &root).with_context(failed)?;
            if !about.is_file() {
                bail!("{}: `{name}` is neither a file nor a folder; name it in .refitignore", failed());
            }
            total += about.len();
            if bundle.tree.files.len() >= bounds.files || total > bounds.bytes {
                bail!(
                    "{}: more than {} files or {}; keep data out of the workflow's folder, or name it in .refitignore",
                    failed(),
                    bounds.files,
                    crate::render::bytes(bounds.bytes)
                );
            }
            let (digest, bytes) = digest_file(path).with_context(failed)?;
            bundle.sources.insert(digest.clone(), path.to_owned());
            let executable = about.permissions().mode() & 0o111 != 0;
            bundle.tree.files.push(TreeFile { path: name, digest, bytes, executable });
        }
        bundle.tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(bundle)
    }

    /// Whether a file of this name is in it.
    pub(crate) fn holds(&self, name: &str) -> bool {
        self.tree.files.binary_search_by(|file| file.path.as_str().cmp(name)).is_ok()
    }

    /// The digest the bundle is known by: that of its tree.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(self.tree.to_json().as_bytes())
    }
}

fn walk(root: &Path) -> WalkBuilder {
    // A .gitignore above the folder counts where git would count it: inside the same repository.
    let in_repository = root.ancestors().any(|folder| folder.join(".git").exists());
    let mut walk = WalkBuilder::new(root);
    walk.hidden(true)
        .parents(in_repository)
        .ignore(false)
        .git_ignore(true)
        .git_global(false)
        .git_exclude(false)
        .require_git(false)
        .follow_links(true)
        .add_custom_ignore_filename(".refitignore")
        .filter_entry(|entry| entry.depth() == 0 || !NEVER.iter().any(|never| entry.file_name() == *never));
    walk
}

fn stays_inside(link: &Path, root: &Path) -> anyhow::Result<()> {
    let target = link.canonicalize().with_context(|| format!("`{}` is a broken link", link.display()))?;
    if !target.starts_with(root) {
        bail!(
            "`{}` is a link that leads out of the folder, to {}; copy what it points to, or name it in .refitignore",
            link.display(),
            target.display()
        );
    }
    Ok(())
}

fn portable_name(path: &Path, root: &Path) -> anyhow::Result<String> {
    let relative = path.strip_prefix(root).unwrap_or(path);
    let Some(name) = relative.to_str() else { bail!("`{}` is not UTF-8; rename it", relative.display()) };
    if let Err(wrong) = check_relative_path(name) {
        bail!("`{name}` {wrong}; rename it");
    }
    Ok(name.to_owned())
}

/// The digest and size of a file's bytes, read in pieces.
fn digest_file(path: &Path) -> anyhow::Result<(Digest, u64)> {
    let mut file = File::open(path).with_context(|| format!("failed to read {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut bytes = 0_u64;
    loop {
        let read = file.read(&mut buffer).with_context(|| format!("failed to read {}", path.display()))?;
        if read == 0 {
            return Ok((Digest::from_hash(&hash.finalize()), bytes));
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    fn names(bundle: &Bundle) -> Vec<&str> {
        bundle.tree.files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn ignored_hidden_and_cached_files_stay_out() {
        let folder = folder(&[
            ("churn.yaml", "workflow: churn"),
            ("src/train.py", "1"),
            ("src/__pycache__/train.pyc", "x"),
            (".refit/refit.db", "x"),
            (".env", "SECRET=1"),
            (".gitignore", "*.csv\n"),
            (".refitignore", "notebooks/\n"),
            ("big.csv", "1,2"),
            ("notebooks/a.ipynb", "{}"),
            ("workflow.schema.json", "{}"),
            ("src/step.schema.json", "{}"),
            ("test.schema.json", "{}"),
        ]);
        let bundle = Bundle::pack(folder.path()).unwrap();
        assert_eq!(names(&bundle), ["churn.yaml", "src/train.py"]);
        assert!(bundle.holds("src/train.py") && !bundle.holds("big.csv"));
        assert_eq!(bundle.tree.files[1].digest, Digest::of(b"1"));
        assert_eq!(bundle.tree.bytes(), 16);
    }

    #[test]
    fn equal_folders_have_equal_digests_and_any_change_another() {
        let digest = |files: &[(&str, &str)]| Bundle::pack(folder(files).path()).unwrap().digest();
        assert_eq!(digest(&[("b", "2"), ("a", "1")]), digest(&[("a", "1"), ("b", "2")]));
        assert_ne!(digest(&[("a", "1")]), digest(&[("a", "2")]));
        assert_ne!(digest(&[("a", "1")]), digest(&[("b", "1")]));
    }

    #[test]
    fn the_executable_bit_is_kept() {
        let folder = folder(&[("run.sh", "#!/bin/sh"), ("data", "")]);
        std::fs::set_permissions(folder.path().join("run.sh"), std::fs::Permissions::from_mode(0o755))
            .unwrap();
        let bundle = Bundle::pack(folder.path()).unwrap();
        let bits: Vec<bool> = bundle.tree.files.iter().map(|file| file.executable).collect();
        assert_eq!(bits, [false, true]);
    }

    #[test]
    fn links_may_not_lead_outside() {
        let outside = folder(&[("secret", "x")]);
        let inside = folder(&[("a.py", "1")]);
        std::os::unix::fs::symlink(inside.path().join("a.py"), inside.path().join("b.py")).unwrap();
        assert_eq!(names(&Bundle::pack(inside.path()).unwrap()), ["a.py", "b.py"]);

        for (name, target) in [("file", outside.path().join("secret")), ("folder", outside.path().to_owned())]
        {
            let link = inside.path().join(name);
            std::os::unix::fs::symlink(target, &link).unwrap();
            let wrong = format!("{:#}", Bundle::pack(inside.path()).unwrap_err());
            assert!(wrong.contains("leads out of the folder"), "{wrong}");
            std::fs::remove_file(link).unwrap();
        }
    }

    #[test]
    fn what_is_neither_file_nor_folder_is_refused() {
        let folder = folder(&[("a.py", "1")]);
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        let wrong = Bundle::pack(folder.path()).unwrap_err().to_string();
        assert!(
            wrong.contains("`socket` is neither a file nor a folder; name it in .refitignore"),
            "{wrong}"
        );
        std::fs::write(folder.path().join(".refitignore"), "socket").unwrap();
        assert_eq!(names(&Bundle::pack(folder.path()).unwrap()), ["a.py"]);
    }

    #[test]
    fn too_much_is_refused_with_advice() {
        let folder = folder(&[("a", "12"), ("b", "34")]);
        let pack = |files, bytes| Bundle::pack_within(folder.path(), Bounds { files, bytes });
        assert!(pack(2, 4).is_ok());
        for (files, bytes) in [(1, 4), (2, 3)] {
            let wrong = pack(files, bytes).unwrap_err().to_string();
            assert!(wrong.contains(".refitignore"), "{wrong}");
        }
    }
}
