//! Garbage collection in the store: blobs that nothing refers to go, and never one that something does, whatever is going on.

use std::collections::BTreeSet;

use futures_util::{StreamExt, stream};
use rand::Rng as _;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

use super::*;

on_both_databases! {
    what_something_refers_to_stays_and_every_other_blob_goes
    what_is_young_stays_and_so_does_what_it_names
    a_blob_that_somebody_was_told_is_here_stays
}

const SAVES: &str = "
workflow: NAME
steps:
  a: { run: [x], checkpoint: state, artifacts: { model: m, more: n } }
  b: { needs: [a], run: [x], checkpoint: state }
";

/// Everything there is, as if it had come two days ago.
async fn age(database: &Database) {
    execute(database, "UPDATE blobs SET touched_at = touched_at - 172800000".to_owned()).await;
}

async fn put(house: &House, content: &[u8]) -> Digest {
    let digest = Digest::of(content);
    let body = stream::iter([Ok::<_, String>(bytes::Bytes::copy_from_slice(content))]);
    house.engine.put_blob(digest.clone(), body).await.unwrap();
    digest
}

/// A folder's list of some of these files.
async fn put_tree(house: &House, files: &[Digest]) -> (Digest, Vec<Digest>) {
    let mut tree = Tree::default();
    for number in 0..rand::rng().random_range(0..5) {
        let digest = files.choose(&mut rand::rng()).unwrap().clone();
        let path = format!("{number}-{}", rand::random::<u32>());
        tree.files.push(TreeFile { path, digest, bytes: 1, executable: false });
    }
    let named = tree.files.iter().map(|file| file.digest.clone()).collect();
    (put(house, tree.to_json().as_bytes()).await, named)
}

async fn stored(database: &Database) -> BTreeSet<String> {
    database.texts("SELECT digest FROM blobs").await.into_iter().collect()
}

async fn what_something_refers_to_stays_and_every_other_blob_goes(database: Database) {
    let house = House::open(&database).await;
    house.register("w", "s").await;
    let mut files = Vec::new();
    for number in 0..60 {
        files.push(put(&house, format!("file {number}").as_bytes()).await);
    }
    // One that is more than a chunk.
    files.push(put(&house, &vec![7; 1_500_000]).await);
    let mut trees = Vec::new();
    for _ in 0..25 {
        trees.push(put_tree(&house, &files).await);
    }
    let mut live: BTreeSet<String> = BTreeSet::new();
    let mut refer = |(tree, named): &(Digest, Vec<Digest>)| {
        live.extend(std::iter::once(tree).chain(named).map(|digest| digest.as_str().to_owned()));
        tree.clone()
    };
    let folder = |digest| ArtifactRef { digest, bytes: 1, kind: ArtifactKind::Folder };
    let file = |digest| ArtifactRef { digest, bytes: 1, kind: ArtifactKind::File };
    let any = || trees.choose(&mut rand::rng()).unwrap();
    let apply = async |name: &str, bundle: Digest| {
        let text = SAVES.replace("NAME", name);
        let apply = Apply { text, used: Default::default(), bundle: Some(bundle) };
        house.engine.apply_workflow(apply, &somebody()).await.unwrap();
    };
    for name in ["kept", "changed", "deleted"] {
        // The bundle that a run has, though its workflow has another by now or is gone.
        apply(name, refer(any())).await;
        house.start_run(name).await;
        let order = house.lease_one("w", "s").await;
        let (saved, more) = (refer(any()), files.choose(&mut rand::rng()).unwrap().clone());
        let report = Report {
            key: order.key.clone(),
            attempt: 1,
            logs: Vec::new(),
            metrics: BTreeMap::new(),
            checkpoint: Some(folder(saved)),
            points: Default::default(),
            set_up_ms: None,
        };
        house.engine.report(report).await.unwrap();
        let artifacts = BTreeMap::from([
            ("model".to_owned(), folder(refer(any()))),
            ("more".to_owned(), file(refer(&(more, Vec::new())))),
        ]);
        let outcome = Outcome::Succeeded(Handed { artifacts, ..Handed::default() });
        house.finish(&order.key, outcome).await.unwrap();
        house.engine.cancel_run(&order.key.run, &somebody()).await.unwrap();
    }
    // One that no run has, and that its workflow has no more; one of a workflow that is gone.
    apply("changed", any().0.clone()).await;
    apply("changed", refer(any())).await;
    apply("gone", any().0.clone()).await;
    for name in ["deleted", "gone"] {
        house.engine.delete_workflow(name, true, None, &somebody()).await.unwrap();
    }
    let version = format!(
        "INSERT INTO versions (model, version, run, artifact, artifact_ref, metrics, evidence, created_at)
        VALUES ('m', 1, 1, 'model', '{}', '{{}}', '{{}}', 0)",
        serde_json::to_string(&folder(refer(any()))).unwrap()
    );
    execute(&database, version).await;
    let before = format!(
        "INSERT INTO cache (key, run, at, results) VALUES ('sha256:k', 1, 0, '{}')",
        serde_json::to_string(&folder(refer(any()))).unwrap()
    );
    execute(&database, before).await;

    let all = stored(&database).await;
    assert_eq!(house.engine.collect_blobs().await.unwrap(), 0, "everything is young");
    age(&database).await;
    let gone = house.engine.collect_blobs().await.unwrap();
    assert_eq!(stored(&database).await, live);
    assert!(gone > 0 && gone as usize == all.len() - live.len(), "{gone} went");
    let orphans = "SELECT COUNT(*) FROM blob_chunks WHERE upload NOT IN (SELECT upload FROM blobs)";
    assert_eq!(database.number(orphans).await, 0);
    assert_eq!(database.number("SELECT COUNT(*) FROM blob_uploads").await, 0);
    for digest in &live {
        let digest: Digest = digest.parse().unwrap();
        let blob = house.engine.find_blob(&digest).await.unwrap();
        let chunks = house.engine.read_blob(blob, 0).await.unwrap();
        let chunks: Vec<bytes::Bytes> = chunks.map(|chunk| chunk.unwrap()).collect().await;
        assert_eq!(Digest::of(&chunks.concat()), digest);
    }
    assert_eq!(house.engine.collect_blobs().await.unwrap(), 0);
}

async fn what_is_young_stays_and_so_does_what_it_names(database: Database) {
    let house = House::open(&database).await;
    let (named, alone) = (put(&house, b"named").await, put(&house, b"alone").await);
    let text = json!({"files": [{"path": "a", "digest": named, "bytes": 5}]}).to_string();
    let old = put(&house, text.as_bytes()).await;
    age(&database).await;
    // Somebody is about to apply a bundle that was there before.
    assert!(house.engine.missing(vec![old.clone()]).await.unwrap().is_empty());
    let young = put(&house, b"young").await;
    assert_eq!(house.engine.collect_blobs().await.unwrap(), 1);
    let left = [&named, &old, &young].map(|digest| digest.as_str().to_owned());
    assert_eq!(stored(&database).await, BTreeSet::from(left));
    assert_eq!(house.engine.missing(vec![alone.clone()]).await.unwrap(), [alone]);
}

async fn a_blob_that_somebody_was_told_is_here_stays(database: Database) {
    let (house, other) = (House::open(&database).await, House::open(&database).await);
    let mut digests = Vec::new();
    for number in 0..200 {
        digests.push(put(&house, format!("blob {number}").as_bytes()).await);
    }
    age(&database).await;
    digests.shuffle(&mut rand::rng());
    let never_asked = digests.split_off(150);
    let asking = async {
        let mut told = Vec::new();
        for some in digests.chunks(3) {
            let missing = other.engine.missing(some.to_vec()).await.unwrap();
            told.extend(some.iter().filter(|digest| !missing.contains(digest)).cloned());
        }
        told
    };
    let (gone, told) = tokio::join!(house.engine.collect_blobs(), asking);
    let left = stored(&database).await;
    let lost: Vec<&Digest> = told.iter().filter(|digest| !left.contains(digest.as_str())).collect();
    assert!(lost.is_empty(), "{} of {} went after they were said to be here", lost.len(), told.len());
    assert!(never_asked.iter().all(|digest| !left.contains(digest.as_str())));
    println!("{} went, {} were touched in time", gone.unwrap(), told.len());
}
