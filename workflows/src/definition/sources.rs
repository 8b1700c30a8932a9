//! The files a workflow is made of: its own text and those it uses. Everything another place needs to read the workflow
//! again. Must never happen here: reading files; whoever has them gives them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Gives the text of files in the folder of a workflow.
pub trait Files {
    /// The text of the file at a path inside the folder, `/` between its parts. The path is always relative and never
    /// leaves the folder.
    ///
    /// # Errors
    /// Why it cannot be read, in words that complete "`PATH` cannot be read: …".
    fn read(&self, path: &str) -> Result<String, String>;
}

/// No files at all: for a workflow that must stand alone.
#[derive(Clone, Copy, Debug)]
pub struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _path: &str) -> Result<String, String> {
        Err("only the workflow's own file is known here".to_owned())
    }
}

/// All the text of one workflow: with it `Workflow::parse_with(&sources.main, &sources)` gives the same workflow
/// anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// The workflow's own document.
    pub main: String,
    /// The text of each file it uses, directly or through others, by its path in the workflow's folder.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub used: BTreeMap<String, String>,
}

impl Sources {
    /// Names the definition. That of a workflow without used files is the digest of its text.
    pub fn digest(&self) -> Digest {
        if self.used.is_empty() {
            return Digest::of(self.main.as_bytes());
        }
        // Each text behind its length and its path, so that no two sets of files give the same bytes.
        let mut bytes = format!("refit-sources\n{}\n{}", self.main.len(), self.main);
        for (path, text) in &self.used {
            bytes.push_str(&format!("\n{}\n{path}\n{}\n{text}", path.len(), text.len()));
        }
        Digest::of(bytes.as_bytes())
    }
}

impl Files for Sources {
    fn read(&self, path: &str) -> Result<String, String> {
        self.used.get(path).cloned().ok_or_else(|| "it was not handed over with the workflow".to_owned())
    }
}

impl Files for BTreeMap<String, String> {
    fn read(&self, path: &str) -> Result<String, String> {
        self.get(path).cloned().ok_or_else(|| "there is no such file".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_depends_on_every_text_and_path() {
        let sources = |used: &[(&str, &str)]| Sources {
            main: "m".to_owned(),
            used: used.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect(),
        };
        assert_eq!(sources(&[]).digest(), Digest::of(b"m"));
        let all = [sources(&[]), sources(&[("a", "x")]), sources(&[("b", "x")]), sources(&[("a", "y")])];
        for (index, one) in all.iter().enumerate() {
            assert!(all[..index].iter().all(|other| other.digest() != one.digest()), "{one:?}");
        }
    }
}
