//! Data on disk, row by row: tables in CSV, JSON Lines and Parquet, read in batches of columns.
//!
//! Reading is blocking and bounded: a batch, a record and the head that types are told from have limits, and no table is
//! ever held as a whole. Must never happen here: a value that cannot be read taken for one that is missing.

mod cells;
mod columnar;
pub(crate) mod profile;
pub(crate) mod quantiles;
mod table;
mod text;

pub(crate) use cells::{Cells, Kind};
#[cfg(test)]
use table::TableError;
pub(crate) use table::{Read, Rows, Table};

#[cfg(test)]
pub(crate) use tests::write_parquet;
#[cfg(test)]
mod tests;

/// Where a table is on this host.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The file, or the folder of files.
    pub(crate) path: std::path::PathBuf,
    /// How rows are written; none: the name says it.
    pub(crate) format: Option<refit_workflows::definition::DataFormat>,
}
