//! `uses`: steps that are defined once, in a file of their own, and used by many. Puts a step together from the file it uses
//! and from its own keys, and reads the values that are handed to the file.
//!
//! What is written beside `uses` wins: the entries of `env`, `inputs` and `artifacts` are added to those of the file, one by
//! one; any other key takes the place of the file's. The verb always comes from the file. Values are handed over by value:
//! the file's expressions read them as `with.NAME`, whatever they hold is never read as an expression or as a script.
//! Must never happen here: a file outside of the workflow's folder, or text put into text.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use serde_json::Value;

use super::super::diagnostics::{FileNumber, Findings, Spot, shown};
use super::super::language::{STEP, USED_FILE, USES, VERBS, WITH_VALUE};
use super::super::raw::{self, Key, Node, Raw};
use super::super::{Files, ParamType};
use super::fields::{Fields, check_key, json, key_is_name, text};
use super::reads::{Place, Reads, passed_on};
use crate::template::{Template, ValueTemplate};
use crate::wire::check_relative_path;

/// How many files may use each other in a row.
const CHAIN_MAX: usize = 10;
/// The most files that one workflow file may use.
const FILES_MAX: usize = 200;
/// The most keys and values that all steps together may take from files.
const TAKEN_MAX: usize = raw::NODES_MAX;

/// Keys that are mappings of the author's own names: entries beside `uses` are added to the file's.
const ADDED: [&str; 3] = ["env", "inputs", "artifacts"];

/// The files that steps use, each read once.
pub(super) struct Library<'f> {
    files: &'f dyn Files,
    read: HashMap<String, Option<Rc<Used>>>,
    taken: usize,
    /// The text of the files that the workflow being read uses.
    pub(super) texts: BTreeMap<String, String>,
}

/// A file that has been read.
struct Used {
    file: FileNumber,
    text: String,
    root: Node,
}

/// One file on the way from a step to the keys it takes.
struct Link {
    path: String,
    used: Rc<Used>,
    /// Where the file is named.
    spot: Spot,
    /// The values handed to it, where there are any.
    given: Option<(Key, Node)>,
}

impl<'f> Library<'f> {
    pub(super) fn new(files: &'f dyn Files) -> Self {
        Self { files, read: HashMap::new(), taken: 0, texts: BTreeMap::new() }
    }

    /// The values that each used file takes, for what expressions may read.
    pub(super) fn values(&self) -> HashMap<FileNumber, Vec<String>> {
        let used = self.read.values().flatten();
        used.map(|used| (used.file, declarations(used).map(|(key, _)| key.name.clone()).collect())).collect()
    }

    fn open(&mut self, path: &str, spot: Spot, f: &mut Findings) -> Option<Rc<Used>> {
        let used = match self.read.get(path) {
            Some(used) => used.clone(),
            None => {
                let used = self.load(path, spot, f).map(Rc::new);
                self.read.insert(path.to_owned(), used.clone());
                used
            }
        }?;
        self.texts.entry(path.to_owned()).or_insert_with(|| used.text.clone());
        Some(used)
    }

    fn load(&mut self, path: &str, spot: Spot, f: &mut Findings) -> Option<Used> {
        if self.read.len() >= FILES_MAX {
            f.add("too-many", spot, format!("the steps use more than {FILES_MAX} files"));
            return None;
        }
        let text = self
            .files
            .read(path)
            .map_err(|wrong| {
                let hint = "paths are relative to the folder of the workflow file";
                f.add_with_hint("unreadable-file", spot, format!("`{path}` cannot be read: {wrong}"), hint);
            })
            .ok()?;
        let file = f.number_of(path)?;
        let mut documents = raw::read(&text, file, f)?;
        let document = documents.pop()?;
        if !documents.is_empty() {
            f.add(
                "wrong-type",
                document.root.position,
                "a file that steps use defines one step: it has one document",
            );
            return None;
        }
        let root = document.root;
        check_file(&root, f)?;
        Some(Used { file, text, root })
    }
}

/// Reports what is wrong with a used file whoever uses it.
fn check_file(root: &Node, f: &mut Findings) -> Option<()> {
    let fields = Fields::any(root, root.position, USED_FILE.owner, f)?;
    for (key, _) in fields.entries() {
        if key.name == "needs" {
            let hint = "write `needs` beside `uses`, and hand over what the file reads of other steps";
            f.add_with_hint(
                "misplaced-key",
                key.position,
                "a file cannot know the steps of those who use it",
                hint,
            );
        } else {
            check_key(key, USED_FILE.owner, STEP.names().filter(|name| *name != "needs"), f);
        }
    }
    let Some((key, node)) = fields.get("with") else { return Some(()) };
    let before = f.count();
    let declared = Fields::any(node, key.position, "`with`", f);
    for (key, node) in declared.iter().flat_map(|declared| declared.entries()) {
        key_is_name(key, f);
        declaration(key, node, f);
    }
    if f.count() > before && fields.get("uses").is_some() {
        let hint = "in a file that steps use, `with` declares what it takes; hand values on as \
                    `uses: { file: FILE, with: { NAME: VALUE } }`";
        f.add_with_hint("value", key.position, "`with` does not stand beside `uses` here", hint);
    }
    Some(())
}

/// What a used file says of a value it takes.
struct Declared {
    kind: WithType,
    default: Option<Value>,
}

#[derive(Clone, Copy)]
enum WithType {
    Any,
    Artifact,
    Plain(ParamType),
}

fn declaration(key: &Key, node: &Node, f: &mut Findings) -> Option<Declared> {
    const WORDS: [(&str, WithType); 6] = [
        ("string", WithType::Plain(ParamType::String)),
        ("integer", WithType::Plain(ParamType::Integer)),
        ("number", WithType::Plain(ParamType::Number)),
        ("boolean", WithType::Plain(ParamType::Boolean)),
        ("artifact", WithType::Artifact),
        ("any", WithType::Any),
    ];
    let fields = Fields::of(node, key.position, &WITH_VALUE, f)?;
    fields.text("description", f);
    let kind = match fields.get("type") {
        Some(_) => fields.word("type", &WORDS, f)?,
        None => WithType::Any,
    };
    let default = match fields.get("default") {
        None => None,
        Some((_, node)) => {
            let value = json(node, f)?;
            let wrong = match kind {
                WithType::Any => None,
                WithType::Artifact => Some("is an artifact of another step: it has no default".to_owned()),
                WithType::Plain(kind) => super::check_param(kind, &value).err(),
            };
            if let Some(wrong) = wrong {
                f.add("wrong-type", node.position, format!("the default of `{}` {wrong}", key.name));
                return None;
            }
            Some(value)
        }
    };
    Some(Declared { kind, default })
}

fn declarations(used: &Used) -> impl Iterator<Item = (&Key, &Node)> {
    let with = entries(&used.root).iter().find(|(key, _)| key.name == "with");
    with.map(|(_, node)| entries(node)).unwrap_or_default().iter().map(|(key, node)| (key, node))
}

fn entries(node: &Node) -> &[(Key, Node)] {
    match &node.value {
        Raw::Map(entries) => entries,
        Raw::Scalar(_) | Raw::List(_) | Raw::Broken => &[],
    }
}

/// The step with what it takes from the files it uses; what is handed to them is left in `reads.handed`. None when a file
/// cannot be used; that has been reported.
pub(super) fn whole_step<'n>(
    key: &Key,
    node: &'n Node,
    index: usize,
    library: &mut Library<'_>,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<Cow<'n, Node>> {
    reads.handed.clear();
    let own = entries(node);
    if !own.iter().any(|(key, _)| key.name == "uses") {
        if let Some((key, _)) = own.iter().find(|(key, _)| key.name == "with") {
            let hint = "name the file that takes the values: `uses: steps/train.yaml`";
            f.add_with_hint("misplaced-key", key.position, "`with` goes with `uses`", hint);
        }
        return Some(Cow::Borrowed(node));
    }
    let links = chain(key, node, library, f)?;
    for link in &links {
        hand_over(link, Place::Step(index), reads, f);
    }
    let mut merged: Vec<(Key, Node)> = Vec::new();
    for link in links.iter().rev() {
        add(&mut merged, entries(&link.used.root), &link.path, f);
    }
    let nearest = links.first().map_or("", |link| link.path.as_str());
    add(&mut merged, own, nearest, f);
    Some(Cow::Owned(Node { position: node.position, value: Raw::Map(merged) }))
}

/// The files from the step on, each used by the one before.
fn chain(step: &Key, node: &Node, library: &mut Library<'_>, f: &mut Findings) -> Option<Vec<Link>> {
    let mut links: Vec<Link> = Vec::new();
    let mut next = target(entries(node), true, f)?;
    while let Some((path, spot, given)) = next {
        if links.iter().any(|link| link.path == path) {
            let way: Vec<&str> = links.iter().map(|link| link.path.as_str()).chain([path.as_str()]).collect();
            let message = format!("files use each other: {}", way.join(" -> "));
            f.add_with_hint("cycle", spot, message, "take one of these `uses` away");
            return None;
        }
        if links.len() >= CHAIN_MAX {
            f.add("too-deep", spot, format!("more than {CHAIN_MAX} files use each other in a row"));
            return None;
        }
        let used = library.open(&path, spot, f)?;
        library.taken += used.root.size();
        if library.taken > TAKEN_MAX {
            let message = format!("the steps take more than {TAKEN_MAX} keys and values from files");
            f.add("too-many", step.position, message);
            return None;
        }
        next = target(entries(&used.root), false, f)?;
        links.push(Link { path, used, spot, given });
    }
    Some(links)
}

type Target = (String, Spot, Option<(Key, Node)>);

/// The file that these keys use, if any, and what they hand to it. In a step, `with` stands beside `uses`.
#[expect(clippy::option_option, reason = "the outer one says that something was reported")]
fn target(keys: &[(Key, Node)], is_step: bool, f: &mut Findings) -> Option<Option<Target>> {
    let Some((key, node)) = keys.iter().find(|(key, _)| key.name == "uses") else { return Some(None) };
    let beside = keys.iter().find(|(key, _)| is_step && key.name == "with");
    let (named, given) = if let Raw::Map(_) = &node.value {
        let fields = Fields::of(node, key.position, &USES, f)?;
        let (_, named) = fields.need("file", "`uses`", "file: steps/train.yaml", f)?;
        let inside = fields.get("with").map(|(key, node)| (key.clone(), node.clone()));
        if let (Some(_), Some((key, _))) = (&inside, beside) {
            f.add("value", key.position, "`with` is written inside `uses` or beside it, not both");
        }
        (named, inside.or_else(|| beside.cloned()))
    } else {
        (node, beside.cloned())
    };
    let path = text(named, "uses", f)?.text.clone();
    let wrong = if Template::is_in(&path) {
        Some("is not written out: which file is used cannot depend on a value".to_owned())
    } else {
        check_relative_path(&path).err()
    };
    if let Some(wrong) = wrong {
        let shown = shown(&path);
        let hint = "a path inside the workflow's folder, as in `uses: steps/train.yaml`";
        f.add_with_hint("path", named.position, format!("`{shown}` {wrong}"), hint);
        return None;
    }
    Some(Some((path, named.position, given)))
}

/// Reads the values handed to one file, and adds them to those handed to the files before it.
fn hand_over(link: &Link, place: Place, reads: &mut Reads, f: &mut Findings) {
    let path = &link.path;
    let given = link.given.as_ref().and_then(|(key, node)| Fields::any(node, key.position, "`with`", f));
    let known: Vec<&str> = declarations(&link.used).map(|(key, _)| key.name.as_str()).collect();
    for (key, _) in given.iter().flat_map(|given| given.entries()) {
        if !known.contains(&key.name.as_str()) {
            let message = format!("`{path}` takes no value `{}`", shown(&key.name));
            f.add_unknown("unknown-with", key.position, message, &key.name, known.iter().copied());
        }
    }
    let mut handed = Vec::new();
    for (key, node) in declarations(&link.used) {
        // Its problems were reported when the file was read.
        let Some(declared) = declaration(key, node, &mut Findings::default()) else { continue };
        let value = given.as_ref().and_then(|given| given.get(&key.name));
        let spot = value.map_or(link.spot, |(key, _)| key.position);
        let given = match (value, declared.default) {
            (Some((_, node)), _) => given_value(node, &key.name, declared.kind, place, reads, f),
            (None, Some(default)) => Some((ValueTemplate::Literal(default), false)),
            (None, None) => {
                let message = format!("`{path}` is given no value `{}`", key.name);
                let hint = format!("hand it over: `with: {{ {}: … }}`", key.name);
                f.add_with_hint("missing-with", spot, message, hint);
                None
            }
        };
        let Some((value, is_same)) = given else { continue };
        if reads.handed(&key.name).is_none() {
            handed.push((key.name.clone(), value));
        } else if !is_same {
            let name = &key.name;
            let message =
                format!("`{name}` means one thing to `{path}` and another to the file that uses it");
            let hint =
                format!("hand it on as it is, `{name}: \"${{{{ with.{name} }}}}\"`, or use another name");
            f.add_with_hint("with-clash", spot, message, hint);
        }
    }
    reads.handed.extend(handed);
}

/// A value as it was given, and whether it is the value of the same name handed on.
fn given_value(
    node: &Node,
    name: &str,
    kind: WithType,
    place: Place,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<(ValueTemplate, bool)> {
    let mut is_same = false;
    let value = match &node.value {
        Raw::Scalar(scalar) if Template::is_in(&scalar.text) => {
            let handed_on = Template::parse(&scalar.text).ok();
            let handed_on = handed_on.as_ref().and_then(passed_on);
            is_same = handed_on == Some(name);
            let template = reads.template(node, name, place, f)?;
            match handed_on.and_then(|name| reads.handed(name)) {
                Some(given) => given.clone(),
                None => ValueTemplate::Text(template),
            }
        }
        Raw::Scalar(_) => ValueTemplate::Literal(json(node, f)?),
        Raw::List(_) | Raw::Map(_) | Raw::Broken => reads.value(node, name, place, f)?,
    };
    let wrong = match (kind, &value) {
        (WithType::Any, _) => None,
        (WithType::Artifact, ValueTemplate::Text(template)) => {
            reads.artifact_of(template, node, name, f)?;
            None
        }
        (WithType::Artifact, _) => Some("must be an artifact: `${{ steps.NAME.artifacts.NAME }}`".to_owned()),
        (WithType::Plain(kind), ValueTemplate::Literal(value)) => super::check_param(kind, value).err(),
        (WithType::Plain(_), ValueTemplate::List(_) | ValueTemplate::Object(_)) => {
            Some("must be a single value".to_owned())
        }
        (WithType::Plain(ParamType::String), ValueTemplate::Text(_)) => None,
        (WithType::Plain(_), ValueTemplate::Text(template)) => template
            .sole_expression()
            .is_none()
            .then(|| "must be one `${{ }}` and nothing else, for it is no text".to_owned()),
    };
    if let Some(wrong) = wrong {
        f.add("wrong-type", node.position, format!("`{name}` {wrong}"));
        return None;
    }
    Some((value, is_same))
}

/// Adds the keys of one file, or of the step, to those of the files it uses. `path` names the file they come from.
fn add(merged: &mut Vec<(Key, Node)>, keys: &[(Key, Node)], path: &str, f: &mut Findings) {
    for (key, node) in keys {
        let name = key.name.as_str();
        if matches!(name, "uses" | "with") || (name == "needs" && key.position.file != 0) {
            continue;
        }
        if VERBS.contains(&name) && merged.iter().any(|(other, _)| VERBS.contains(&other.name.as_str())) {
            let message = format!("the verb of this step comes from `{path}`");
            let hint = "take the verb away here, or `uses`";
            f.add_with_hint("many-verbs", key.position, message, hint);
            continue;
        }
        match merged.iter_mut().find(|(other, _)| other.name == name) {
            None => merged.push((key.clone(), node.clone())),
            Some((_, Node { value: Raw::Map(base), .. }))
                if ADDED.contains(&name) && matches!(node.value, Raw::Map(_)) =>
            {
                for (key, node) in entries(node) {
                    match base.iter_mut().find(|(other, _)| other.name == key.name) {
                        None => base.push((key.clone(), node.clone())),
                        Some(entry) => *entry = (key.clone(), node.clone()),
                    }
                }
            }
            Some(entry) => *entry = (key.clone(), node.clone()),
        }
    }
}
