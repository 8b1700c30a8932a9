//! `refit schema`: the JSON Schema of the language, for editors. Asks nobody: it is that of this version.

use anyhow::Context as _;
use refit_workflows::definition::schema;

use crate::args::{SchemaArgs, SchemaOf};
use crate::exit::Exit;
use crate::render;

/// What the schema of workflow files is called where it stands beside one.
pub(crate) const WORKFLOW_SCHEMA: &str = "workflow.schema.json";
/// What the schema of the files that steps use is called.
pub(crate) const STEP_SCHEMA: &str = "step.schema.json";

/// What the schema of test files is called.
pub(crate) const TEST_SCHEMA: &str = "test.schema.json";

/// Prints the schema.
pub(crate) fn run(args: &SchemaArgs) -> anyhow::Result<Exit> {
    render::print_raw(text(args.of)?.as_bytes())?;
    Ok(Exit::Ok)
}

/// The schema as a file holds it: the same bytes for the same version.
pub(crate) fn text(of: SchemaOf) -> anyhow::Result<String> {
    let schema = match of {
        SchemaOf::Workflow => schema::workflow(),
        SchemaOf::Step => schema::step(),
        SchemaOf::Test => schema::test(),
    };
    let mut text = serde_json::to_string_pretty(&schema).context("failed to write the schema")?;
    text.push('\n');
    Ok(text)
}
