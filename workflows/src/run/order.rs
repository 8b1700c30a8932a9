//! What a worker is told about a step, and what its expressions see. Pure rendering: no state changes here.

use serde_json::json;

use super::*;
use crate::definition::{
    CallTask, Command, DataCheck, DataFormat, EvaluateTask, RunTask, Task, ValidateTask, Work,
};
use crate::expression::{Expression, Scope};
use crate::template::{Template, ValueTemplate};
use crate::wire::{
    AttemptKey, CallOrder, CheckpointOrder, DataRef, DataReferences, EvaluateOrder, Limits, OrderCommand,
    OrderTask, RunOrder, StepOrder, ValidateOrder,
};

impl Run {
    /// The order for a step of a worker as it stands: its key carries the step's current epoch.
    ///
    /// # Errors
    /// A template that cannot be rendered, in words.
    pub fn order(&self, step: usize) -> Result<StepOrder, String> {
        let Verb::Work(work) = &self.definition(step).verb else {
            return Err(format!("{} is no step for a worker", self.step_name(step)));
        };
        let scope = self.scope(&references(work), Some(step));
        let task = match &work.task {
            Task::Run(run) => OrderTask::Run(run_order(run, &scope)?),
            Task::Call(call) => OrderTask::Call(call_order(call, &scope)?),
            Task::Validate(validate) => OrderTask::Validate(Box::new(self.validate_order(validate, &scope)?)),
            Task::Evaluate(task) => OrderTask::Evaluate(Box::new(self.evaluate_order(step, task, &scope)?)),
        };
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
            task,
            params: self.facts.params.clone(),
            bundle: self.facts.bundle.clone(),
            inputs,
            champion: self.head.champion.as_ref().map(|champion| champion.artifacts.clone()),
            artifacts: work.artifacts.clone(),
            checkpoint: work.checkpoint.clone().map(|path| CheckpointOrder { path, from: None }),
            events: self.facts.batch.count,
            gpus: work.host.gpus.unwrap_or(0),
            timeout_ms: u64::try_from(work.timeout.as_millis()).unwrap_or(u64::MAX),
            limits: Limits { cpus: work.host.cpus, memory: work.host.memory },
            secrets: BTreeMap::new(),
        })
    }

    fn evaluate_order(
        &self,
        place: usize,
        task: &EvaluateTask,
        scope: &Scope,
    ) -> Result<EvaluateOrder, String> {
        let questions = self.workflow.questions(self.of(place), &task.examples);
        Ok(EvaluateOrder {
            predictions: self.data_ref("evaluate.predictions", &task.predictions, scope)?,
            examples: task.examples.clone().with_asked(&questions),
            champion: self.head.champion.is_some(),
            questions,
        })
    }

    fn validate_order(&self, validate: &ValidateTask, scope: &Scope) -> Result<ValidateOrder, String> {
        let checks = validate
            .checks
            .iter()
            .map(|check| check.try_map(|template| self.data_ref("validate: another table", template, scope)));
        Ok(ValidateOrder {
            data: self.data_ref("validate.data", &validate.data, scope)?,
            format: validate.format,
            checks: checks.collect::<Result<_, _>>()?,
            references: DataReferences::default(),
        })
    }

    /// What a template that names data has come to.
    fn data_ref(&self, what: &str, template: &Template, scope: &Scope) -> Result<DataRef, String> {
        let value = template.render(scope).map_err(|wrong| format!("{what}: {wrong}"))?;
        match value {
            Value::String(url) if url.contains("://") => {
                Ok(DataRef::S3(url.parse().map_err(|wrong| format!("{what}: `{url}` {wrong}"))?))
            }
            Value::String(path) if path.trim().is_empty() => {
                Err(format!("{what}: `{}` is empty", template.source()))
            }
            Value::String(path) => Ok(DataRef::Path(path)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                let artifact = serde_json::from_value(value).map_err(|_| {
                    format!("{what}: `{}` is neither a path nor an artifact", template.source())
                })?;
                Ok(DataRef::Artifact { artifact, format: self.format_of(template) })
            }
        }
    }

    /// What the path says under which a step hands an artifact on.
    fn format_of(&self, template: &Template) -> Option<DataFormat> {
        let [_, step, _, artifact] = template.sole_expression()?.sole_path()? else { return None };
        let step = &self.workflow.steps[self.workflow.step_index(step)?];
        let made_by =
            if let Verb::Select(select) = &step.verb { &self.workflow.steps[select.from] } else { step };
        DataFormat::of_name(made_by.verb.work()?.artifacts.get(artifact)?)
    }

    /// The names of the secrets that the order of this step is to carry.
    pub fn secrets(&self, step: usize) -> &[String] {
        self.definition(step).verb.work().map(|work| work.secrets.as_slice()).unwrap_or_default()
    }

    /// What expressions see, limited to the steps that `references` names: a run of thousands of steps must not be
    /// written out for each expression.
    pub(super) fn scope(&self, references: &[Vec<String>], place: Option<usize>) -> Scope {
        let handed = place.map(|place| self.definition(place).with.as_slice()).unwrap_or_default();
        let handed = handed.iter().flat_map(|(_, value)| value.templates());
        let handed = handed.flat_map(Template::expressions).flat_map(Expression::references);
        let references: Vec<Vec<String>> = references.iter().cloned().chain(handed).collect();
        let mut steps = Map::new();
        let mut whole = BTreeSet::new();
        for reference in &references {
            if let [root, name, rest @ ..] = reference.as_slice()
                && root == "steps"
                && rest.first().is_none_or(|field| field == "instances")
            {
                whole.insert(name);
            }
        }
        for reference in &references {
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
        let needs = place.map(|place| self.needs_of(place)).unwrap_or_default();
        let mut scope = Scope { roots, needs, failed_with: BTreeMap::new() };
        if let Some(place) = place {
            self.hand_over(place, &mut scope);
        }
        scope
    }

    /// What the step is handed by the file that uses it, each value seeing those before it. One that cannot be evaluated
    /// is left out: what reads it fails, and says why.
    fn hand_over(&self, place: usize, scope: &mut Scope) {
        for (name, value) in &self.definition(place).with {
            let value = value.render(scope);
            let Value::Object(handed) = scope.roots.entry("with").or_insert_with(|| json!({})) else {
                return;
            };
            match value {
                Ok(value) => drop(handed.insert(name.clone(), value)),
                Err(error) => drop(scope.failed_with.insert(name.clone(), error.message)),
            }
        }
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
        let results = self.steps[place].state.handed_over().unwrap_or(&empty);
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
    let env = texts("env", &run.env, scope)?;
    Ok(RunOrder { command, env, python: run.python.clone(), container: run.container.clone() })
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
        Task::Validate(validate) => {
            let others = validate.checks.iter().filter_map(DataCheck::other_data);
            expressions.extend(std::iter::once(&validate.data).chain(others).flat_map(Template::expressions));
        }
        Task::Evaluate(task) => expressions.extend(task.predictions.expressions()),
    }
    expressions.into_iter().flat_map(Expression::references).collect()
}
