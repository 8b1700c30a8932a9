//! Data that the built-in verbs read: laid out where a step may see it, and found there. Must never happen here: data being read.

use std::path::{Path, PathBuf};

use refit_workflows::definition::DataFormat;
use refit_workflows::wire::{ArtifactRef, DataRef, check_relative_path};

use super::{Attempt, s3};
use crate::blobs::Access;
use crate::data::Source;

impl Attempt<'_> {
    /// Lays out the workflow's folder.
    pub(super) async fn lay_out_code(&self) -> Result<(), String> {
        let Some(bundle) = &self.order.bundle else { return Ok(()) };
        let laid = self.tools.blobs.lay_out_tree(bundle, &self.place.work(), Access::ReadOnly).await;
        laid.map_err(|cause| format!("failed to lay out the workflow's code: {cause}"))
    }

    /// Where data is found on this host.
    pub(super) async fn source(
        &self,
        data: &DataRef,
        format: Option<DataFormat>,
        name: &str,
    ) -> Result<Source, String> {
        match data {
            DataRef::Path(path) if path.starts_with('/') => Ok(Source { path: PathBuf::from(path), format }),
            DataRef::Path(path) => {
                check_relative_path(path).map_err(|why| format!("the path `{path}` {why}"))?;
                Ok(Source { path: self.place.work().join(path), format })
            }
            DataRef::S3(url) => {
                let path = self.place.control(name);
                s3::fetch(url, &self.order.secrets, &path, self.log).await?;
                Ok(Source { path, format: format.or(DataFormat::of_name(&url.key)) })
            }
            DataRef::Artifact { artifact, format: named } => {
                let path = self.place.control(name);
                self.lay_out_data(artifact, &path).await?;
                Ok(Source { path, format: format.or(*named) })
            }
        }
    }

    pub(super) async fn lay_out_data(&self, artifact: &ArtifactRef, path: &Path) -> Result<(), String> {
        let laid = self.tools.blobs.lay_out(artifact, path, Access::ReadOnly).await;
        laid.map_err(|cause| format!("failed to lay out data: {cause}"))
    }

    /// The folders in which data was laid out: where that is is nobody's concern.
    pub(super) fn hidden_folders(&self) -> Vec<String> {
        let folder = |path: PathBuf| format!("{}/", path.display().to_string().trim_end_matches('/'));
        vec![folder(self.place.work()), folder(self.place.control(""))]
    }

    /// A reason without those folders.
    pub(super) fn without_paths(&self, reason: &str) -> String {
        self.hidden_folders().iter().fold(reason.to_owned(), |reason, hidden| reason.replace(hidden, ""))
    }
}
