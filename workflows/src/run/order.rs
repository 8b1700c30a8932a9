//! What a worker is told about a step, and what its expressions see. Pure rendering: no state changes here.

use serde_json::json;

use super::*;
use crate::definition::{Command, RunTask, Task, Work};
use crate::expression::{Expression, Scope};
use crate::template::Template;
use crate::wire::{AttemptKey, OrderCommand, StepOrder};

impl Run {
    /// The order for a `run` step as it stands: its key carries the step's current epoch.
    ///
    /// # Errors
    /// A template that cannot be rendered, in words.
    pub fn order(&self, step: usize) -> Result<StepOrder, String> {
        let Verb::Work(work) = &self.definition(step).verb else {
            return Err(format!("{} is no step for a worker", self.step_name(step)));
        };
        let Task::Run(verb) = &work.task else {
            return Err(format!("`{}` cannot be run yet", work.task.name()));
        };
        let scope = self.scope(&references(work, verb), Some(step));
        let text = |what: &str, template: &Template| {
            template.render_text(&scope).map_err(|wrong| format!("{what}: {wrong}"))
        };
        let command = match &verb.command {
            Command::Shell(script) => OrderCommand::Shell(script.clone()),
            Command::Arguments(arguments) => OrderCommand::Arguments(
                arguments.iter().map(|argument| text("run", argument)).collect::<Result<_, _>>()?,
            ),
        };
        let env = verb
            .env
            .iter()
            .map(|(name, template)| Ok((name.clone(), text(&format!("env.{name}"), template)?)))
            .collect::<Result<_, String>>()?;
        let inputs = work
            .inputs
            .iter()
            .map(|(name, template)| Ok((name.clone(), artifact(name, template, &scope)?)))
            .collect::<Result<_, String>>()?;
        Ok(StepOrder {
            key: AttemptKey {
                run: self.facts.name.clone(),
                step: self.step_name(step).to_owned(),
                epoch: self.steps[step].epoch,
            },
            attempt: self.steps[step].attempt,
            command,
            env,
            params: self.facts.params.clone(),
            bundle: self.facts.bundle.clone(),
            requirements: verb.requirements.clone(),
            inputs,
            champion: self.head.champion.as_ref().map(|champion| champion.artifacts.clone()),
            artifacts: work.artifacts.clone(),
            events: self.facts.batch.count,
            timeout_ms: u64::try_from(work.timeout.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// What expressions see, limited to the steps that `references` names: a run of thousands of steps must not be
    /// written out for each expression.
    pub(super) fn scope(&self, references: &[Vec<String>], place: Option<usize>) -> Scope {
        let mut steps = Map::new();
        let mut whole = BTreeSet::new();
        for reference in references {
            if let [root, name, rest @ ..] = reference.as_slice()
                && root == "steps"
                && rest.first().is_none_or(|field| field == "instances")
            {
                whole.insert(name);
            }
        }
        for reference in references {
            if let [root, name, ..] = reference.as_slice()
                && root == "steps"
                && !steps.contains_key(name)
                && let Some(index) = self.workflow.step_index(name)
            {
                steps.insert(name.clone(), self.step_value(index, whole.contains(name)));
            }
        }
        self.scope_with(steps, place)
    }

    /// What expressions see, with every step before this one.
    pub(super) fn whole_scope(&self, place: usize) -> Scope {
        let step = self.of(place);
        let mut before = self.workflow.ancestors(step);
        if self.workflow.steps[step].finally {
            before.extend(0..self.first_finally());
        }
        let steps = before
            .into_iter()
            .map(|index| (self.step_name(index).to_owned(), self.step_value(index, true)))
            .collect();
        self.scope_with(steps, Some(place))
    }

    fn scope_with(&self, steps: Map<String, Value>, place: Option<usize>) -> Scope {
        let mut roots = Map::new();
        roots.insert("params".to_owned(), Value::Object(self.facts.params.clone()));
        roots.insert("steps".to_owned(), Value::Object(steps));
        roots.insert("batch".to_owned(), self.facts.batch.to_value());
        roots.insert("champion".to_owned(), json!(self.head.champion));
        let state = match place {
            Some(place) if self.definition(place).finally => self.ending_before_finally().name(),
            Some(_) | None => self.head.state.name(),
        };
        roots.insert("run".to_owned(), self.run_value(state));
        if let Some(values) = place.and_then(|place| self.matrix_value(place)) {
            roots.insert("matrix".to_owned(), values);
        }
        Scope { roots, needs: place.map(|place| self.needs_of(place)).unwrap_or_default() }
    }

    pub(super) fn run_value(&self, state: &str) -> Value {
        json!({
            "name": self.facts.name,
            "number": self.facts.name.number,
            "workflow": self.workflow.name,
            "state": state,
        })
    }

    /// An instance's own values.
    pub(super) fn matrix_value(&self, place: usize) -> Option<Value> {
        self.steps[place].instance.as_ref().map(|instance| Value::Object(instance.values.clone()))
    }

    /// A step as expressions see it; of a group its instances too, if they are asked for.
    fn step_value(&self, step: usize, with_instances: bool) -> Value {
        let entry = &self.steps[step];
        let mut value = self.results_value(step);
        value["verdict"] = json!(entry.decision.as_ref().map(|decision| decision.verdict.as_str()));
        if with_instances && self.workflow.steps[step].matrix.is_some() {
            let instance = |&place: &usize| {
                let mut value = self.results_value(place);
                value["name"] = json!(self.step_name(place));
                value["matrix"] = self.matrix_value(place).unwrap_or_default();
                value
            };
            value["instances"] = self.instances(step).iter().map(instance).collect();
        }
        value
    }

    fn results_value(&self, place: usize) -> Value {
        let empty = Results::default();
        let results = self.steps[place].state.results().unwrap_or(&empty);
        json!({
            "state": self.steps[place].state.name(),
            "outputs": results.outputs,
            "metrics": results.metrics,
            "artifacts": results.artifacts,
        })
    }
}

fn artifact(name: &str, template: &Template, scope: &Scope) -> Result<ArtifactRef, String> {
    let value = template.render(scope).map_err(|wrong| format!("inputs.{name}: {wrong}"))?;
    serde_json::from_value(value).map_err(|_| format!("inputs.{name}: {} is no artifact", template.source()))
}

fn references(work: &Work, verb: &RunTask) -> Vec<Vec<String>> {
    let arguments: &[Template] = match &verb.command {
        Command::Arguments(arguments) => arguments,
        Command::Shell(_) => &[],
    };
    arguments
        .iter()
        .chain(verb.env.values())
        .chain(work.inputs.values())
        .flat_map(Template::expressions)
        .flat_map(Expression::references)
        .collect()
}
