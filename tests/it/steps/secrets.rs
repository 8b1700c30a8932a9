//! Secrets: where they come from, who gets them, and that nothing keeps them.

use super::*;

const SECRET: &str = "correct-horse/battery+staple";

const USES: &str = "
workflow: uses
steps:
  show:
    run: |
      echo \"token $HUB_TOKEN\"
      printf '%s' \"user:$HUB_TOKEN\" | base64
      echo \"$OTHER_KEY\" >&2
      echo given=\"$HUB_TOKEN\" >> $REFIT_OUTPUTS
      test ${#HUB_TOKEN} -eq 28 && echo right=yes >> $REFIT_OUTPUTS
    secrets: [HUB_TOKEN, OTHER_KEY]
  blind: { run: 'test -z \"$HUB_TOKEN\"' }
  fails: { needs: [show], run: 'echo \"no entry with $HUB_TOKEN\" >&2; exit 3', secrets: [HUB_TOKEN] }
";

/// An orchestrator whose secrets are in a folder and in variables.
async fn house_with_secrets() -> House {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("secrets")).unwrap();
    std::fs::write(folder.path().join("secrets/HUB_TOKEN"), format!("{SECRET}\n")).unwrap();
    let settings = format!("secrets: {{ folder: {}/secrets, env: APP_SECRET_ }}\n", folder.path().display());
    let database = services::sqlite();
    let orchestrator = Orchestrator::start(Options {
        database_url: Some(database.url().to_owned()),
        settings: Some(settings),
        env: vec![("APP_SECRET_OTHER_KEY".to_owned(), "from-a-variable".to_owned())],
        ..Options::default()
    })
    .await;
    House { database, orchestrator, folder }
}

/// Every file below a folder that holds this text.
fn files_with(folder: &std::path::Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes.windows(text.len()).any(|window| window == text.as_bytes())
        {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_gets_the_secrets_it_names_and_nothing_keeps_them() {
    let house = house_with_secrets().await;
    let worker = house.worker("w", 2);
    house.apply(USES).await;
    let api = house.api();
    let run = api.start_run("uses", json!({})).await;
    let over = api.wait_run(&run, "failed", PATIENCE).await;
    let show = Api::step(&over, "show");
    assert_eq!(show["outputs"], json!({"right": "yes", "given": "***HUB_TOKEN***"}));
    assert_eq!(Api::step(&over, "blind")["state"], "succeeded", "a step that names none gets none");
    assert_eq!(Api::step(&over, "fails")["reason"], "exit code 3: no entry with ***HUB_TOKEN***");
    let log = api.log(&run, None).await;
    assert!(log.contains("token ***HUB_TOKEN***\n") && log.contains("***OTHER_KEY***\n"), "{log}");

    let house_folder =
        std::path::Path::new(house.database.url().trim_start_matches("sqlite:")).parent().unwrap().to_owned();
    assert!(!files_with(&house_folder, "HUB_TOKEN").is_empty(), "the search finds what is there");
    for text in [SECRET, "from-a-variable", "Y29ycmVjdC1ob3JzZ", "NvcnJlY3QtaG9yc2"] {
        for folder in [&house_folder, &house.orchestrator.data(), &worker.data()] {
            assert_eq!(files_with(folder, text), Vec::<PathBuf>::new(), "{text}");
        }
        for said in [house.orchestrator.logs(), worker.logs(), over.to_string(), log.clone()] {
            assert!(!said.contains(text), "{said}");
        }
    }

    // A secret that is replaced is the new one for the next attempt.
    std::fs::write(house.file("secrets/HUB_TOKEN"), "replaced-by-now").unwrap();
    let run = api.start_run("uses", json!({})).await;
    let over = api.wait_over(&run, PATIENCE).await;
    assert_eq!(Api::step(&over, "show")["state"], "failed", "it is not the first one any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_not_there_is_told_by_apply_and_by_the_step() {
    let house = house_with_secrets().await;
    let _worker = house.worker("w", 1);
    let file = house.file("lacks.yaml");
    std::fs::write(
        &file,
        "workflow: lacks\nsteps: { a: { run: 'true', secrets: [HUB_TOKEN, ABSENT_KEY] } }\n",
    )
    .unwrap();
    let output = house.refit(&["apply", &file.display().to_string()]).await;
    exit(&output, 0);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        told.contains("step `a`: secret `ABSENT_KEY`: the orchestrator has no file ")
            && !told.contains("HUB_TOKEN`"),
        "{told}"
    );

    let api = house.api();
    let run = api.start_run("lacks", json!({})).await;
    let over = api.wait_run(&run, "failed", PATIENCE).await;
    let reason = Api::step(&over, "a")["reason"].as_str().unwrap().to_owned();
    assert!(
        reason.contains("secret `ABSENT_KEY`: ") && reason.contains("no variable APP_SECRET_ABSENT_KEY"),
        "{reason}"
    );
}
