//! What a worker is told about a step, and what its expressions see. Pure rendering: no state changes here.

use serde_json::json;

use super::*;
use crate::definition::{CallTask, Command, RunTask, Task, Work};
use crate::expression::{Expression, Scope};
use crate::template::{Template, ValueTemplate};
use crate::wire::{AttemptKey, CallOrder, OrderCommand, OrderTask, RunOrder, StepOrder};

impl Run {
    /// The order for a step of a worker as it stands: its key carries the step's current epoch.
    ///
    /// # Errors
    /// A template that cannot be rendered, in words.
    pub fn order(&self, step: usize) -> Result<StepOrder, String> {
        let definition = &self.workflow.steps[step];
        let Verb::Work(work) = &definition.verb else {
            return Err(format!("{} is no step for a worker", definition.name));
        };
        let scope = self.scope(&references(work), Some(step));
        let task = match &work.task {
            Task::Run(run) => OrderTask::Run(run_order(run, &scope)?),
            Task::Call(call) => OrderTask::Call(call_order(call, &scope)?),
        };
        let inputs = work
            .inputs
            .iter()
            .map(|(name, template)| Ok((name.clone(), artifact(name, template, &scope)?)))
            .collect::<Result<_, String>>()?;
        Ok(StepOrder {
            key: AttemptKey {
                run: self.facts.name.clone(),
                step: definition.name.clone(),
                epoch: self.steps[step].epoch,
            },
            attempt: self.steps[step].attempt,
            task,
            params: self.facts.params.clone(),
            bundle: self.facts.bundle.clone(),
            inputs,
            champion: self.head.champion.as_ref().map(|champion| champion.artifacts.clone()),
            artifacts: work.artifacts.clone(),
            events: self.facts.batch.count,
            timeout_ms: u64::try_from(work.timeout.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// What expressions see, limited to the steps that `references` names: a run of thousands of steps must not be
    /// written out for each expression.
    pub(super) fn scope(&self, references: &[Vec<String>], step: Option<usize>) -> Scope {
        let mut steps = Map::new();
        for reference in references {
            if let [root, name, ..] = reference.as_slice()
                && root == "steps"
                && let Some(index) = self.workflow.step_index(name)
            {
                steps.insert(name.clone(), self.step_value(index));
            }
        }
        self.scope_with(steps, step)
    }

    /// What expressions see, with every step before this one.
    pub(super) fn whole_scope(&self, step: usize) -> Scope {
        let steps = self
            .workflow
            .ancestors(step)
            .into_iter()
            .map(|index| (self.step_name(index).to_owned(), self.step_value(index)))
            .collect();
        self.scope_with(steps, Some(step))
    }

    fn scope_with(&self, steps: Map<String, Value>, step: Option<usize>) -> Scope {
        let mut roots = Map::new();
        roots.insert("params".to_owned(), Value::Object(self.facts.params.clone()));
        roots.insert("steps".to_owned(), Value::Object(steps));
        roots.insert("batch".to_owned(), self.facts.batch.to_value());
        roots.insert("champion".to_owned(), json!(self.head.champion));
        roots.insert(
            "run".to_owned(),
            json!({
                "name": self.facts.name,
                "number": self.facts.name.number,
                "workflow": self.workflow.name,
                "state": self.head.state.name(),
            }),
        );
        Scope { roots, needs: step.map(|step| self.needs_of(step)).unwrap_or_default() }
    }

    fn step_value(&self, step: usize) -> Value {
        let entry = &self.steps[step];
        let empty = Results::default();
        let results = entry.state.results().unwrap_or(&empty);
        json!({
            "state": entry.state.name(),
            "outputs": results.outputs,
            "metrics": results.metrics,
            "artifacts": results.artifacts,
            "verdict": entry.decision.as_ref().map(|decision| decision.verdict.as_str()),
        })
    }
}

fn artifact(name: &str, template: &Template, scope: &Scope) -> Result<ArtifactRef, String> {
    let value = template.render(scope).map_err(|wrong| format!("inputs.{name}: {wrong}"))?;
    serde_json::from_value(value).map_err(|_| format!("inputs.{name}: {} is no artifact", template.source()))
}

fn text(what: &str, template: &Template, scope: &Scope) -> Result<String, String> {
    template.render_text(scope).map_err(|wrong| format!("{what}: {wrong}"))
}

fn texts(
    what: &str,
    templates: &BTreeMap<String, Template>,
    scope: &Scope,
) -> Result<BTreeMap<String, String>, String> {
    let named = |(name, template): (&String, &Template)| {
        Ok((name.clone(), text(&format!("{what}.{name}"), template, scope)?))
    };
    templates.iter().map(named).collect()
}

fn run_order(run: &RunTask, scope: &Scope) -> Result<RunOrder, String> {
    let command = match &run.command {
        Command::Shell(script) => OrderCommand::Shell(script.clone()),
        Command::Arguments(arguments) => OrderCommand::Arguments(
            arguments.iter().map(|argument| text("run", argument, scope)).collect::<Result<_, _>>()?,
        ),
    };
    Ok(RunOrder { command, env: texts("env", &run.env, scope)?, requirements: run.requirements.clone() })
}

fn call_order(call: &CallTask, scope: &Scope) -> Result<CallOrder, String> {
    let json = match &call.json {
        Some(json) => Some(json.render(scope).map_err(|wrong| format!("call.json: {wrong}"))?),
        None => None,
    };
    Ok(CallOrder {
        method: call.method.clone(),
        url: text("call.url", &call.url, scope)?,
        headers: texts("call.headers", &call.headers, scope)?,
        json,
    })
}

fn references(work: &Work) -> Vec<Vec<String>> {
    let mut expressions: Vec<&Expression> = work.inputs.values().flat_map(Template::expressions).collect();
    match &work.task {
        Task::Run(run) => {
            let arguments: &[Template] = match &run.command {
                Command::Arguments(arguments) => arguments,
                Command::Shell(_) => &[],
            };
            expressions.extend(arguments.iter().chain(run.env.values()).flat_map(Template::expressions));
        }
        Task::Call(call) => {
            let texts = std::iter::once(&call.url).chain(call.headers.values());
            expressions.extend(texts.flat_map(Template::expressions));
            let values = call.json.iter().flat_map(ValueTemplate::templates);
            expressions.extend(values.flat_map(Template::expressions));
        }
    }
    expressions.into_iter().flat_map(Expression::references).collect()
}
