//! The files of `examples/digits`, inside the program: the tour runs from wherever the program is installed. The
//! example stays the only place they are written.

macro_rules! example {
    ($name:literal) => {
        ($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits/", $name)))
    };
}

/// The workflow's folder: file name and text.
pub(super) const WORKFLOW: &[(&str, &str)] = &[
    example!("workflow.yaml"),
    example!("workflow.test.yaml"),
    example!("requirements.txt"),
    example!("table.py"),
    example!("train.py"),
    example!("evaluate.py"),
    example!("README.md"),
];

/// The events of the three acts, as JSON Lines.
pub(super) const EVENTS: [&str; 3] = [
    example!("events/1-first-labels.jsonl").1,
    example!("events/2-burst.jsonl").1,
    example!("events/3-shuffled-labels.jsonl").1,
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_code_file_of_the_example_is_inside() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/digits");
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            // The demo does what `play.sh` does.
            let code = !name.starts_with('.') && !name.ends_with(".pyc") && name != "play.sh";
            if path.is_file() && code {
                assert!(
                    WORKFLOW.iter().any(|(inside, _)| *inside == name),
                    "{name} is missing from the program"
                );
            }
        }
    }
}
