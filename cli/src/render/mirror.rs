//! How it looks how far MLflow is with what the registry has.

use refit_workflows::time::Timestamp;
use refit_workflows::wire::{MirrorState, MirrorView, ModelView};

use super::time::relative;
use super::{GOOD, WARN, clean, paint};

/// Of a version or a move: `in MLflow as version 7 (read back 3s ago)`, or why not yet.
pub(crate) fn words(mirror: &MirrorView, now: Timestamp) -> String {
    let number = mirror.version.map(|number| format!(" as version {number}")).unwrap_or_default();
    match mirror.state {
        MirrorState::Mirrored => paint(GOOD, format!("in MLflow{number}{}", read_back(mirror, now))),
        MirrorState::Pending => paint(WARN, format!("not yet in MLflow{}", trouble(mirror, now))),
    }
}

/// Of a version or a move, in a table's cell: MLflow's number.
pub(crate) fn cell(mirror: Option<&MirrorView>) -> Option<String> {
    mirror.map(|mirror| match (mirror.state, mirror.version) {
        (MirrorState::Mirrored, Some(number)) => number.to_string(),
        (MirrorState::Mirrored, None) => "there".to_owned(),
        (MirrorState::Pending, _) => "not yet".to_owned(),
    })
}

/// Of a whole model, in lines; what somebody else had changed as well.
pub(crate) fn of_model(model: &ModelView, now: Timestamp) -> Vec<String> {
    let Some(mirror) = &model.mirror else { return Vec::new() };
    let server = clean(&mirror.server);
    let first = match mirror.state {
        MirrorState::Mirrored => paint(GOOD, format!("in MLflow at {server}{}", read_back(mirror, now))),
        MirrorState::Pending => {
            let trouble = trouble(mirror, now);
            paint(WARN, format!("not all of it is in MLflow at {server} yet{trouble}"))
        }
    };
    let noted = mirror.noted.as_ref().zip(mirror.noted_at);
    let noted = noted
        .map(|(noted, at)| format!("somebody else changed MLflow {}: {}", relative(at, now), clean(noted)));
    [Some(first), noted].into_iter().flatten().collect()
}

fn read_back(mirror: &MirrorView, now: Timestamp) -> String {
    mirror.at.map(|at| format!(" (read back {})", relative(at, now))).unwrap_or_default()
}

fn trouble(mirror: &MirrorView, now: Timestamp) -> String {
    let Some(error) = &mirror.error else { return String::new() };
    let next = mirror.next_try_at.filter(|at| *at > now);
    let next = next.map(|at| format!("; next try {}", relative(at, now))).unwrap_or_default();
    format!(": {}{next}", clean(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::plain;

    #[test]
    fn it_is_told_whether_mlflow_has_it_and_why_not_yet() {
        let now = Timestamp::parse("2027-01-15T08:00:00Z").unwrap();
        let view = |state: &str, more: serde_json::Value| -> MirrorView {
            let mut view = serde_json::json!({ "state": state, "server": "http://m" });
            view.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value(view).unwrap()
        };
        let there = view("mirrored", serde_json::json!({ "version": 7, "at": "2027-01-15T07:59:57Z" }));
        assert_eq!(plain(&words(&there, now)), "in MLflow as version 7 (read back 3s ago)");
        let away =
            serde_json::json!({ "error": "connection refused", "next_try_at": "2027-01-15T08:00:08Z" });
        let away = view("pending", away);
        assert_eq!(plain(&words(&away, now)), "not yet in MLflow: connection refused; next try in 8s");
        assert_eq!((cell(Some(&there)).unwrap(), cell(Some(&away)).unwrap()), ("7".into(), "not yet".into()));
        assert_eq!(plain(&words(&view("pending", serde_json::json!({})), now)), "not yet in MLflow");
    }
}
