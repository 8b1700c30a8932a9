//! What the blobs of a host promise, with a small orchestrator that does as a test says.

use super::cache::BOOT;
use refit_workflows::wire::PIECE_BYTES;

use super::*;
use crate::testing::TestOrchestrator;

fn file(digest: &Digest) -> ArtifactRef {
    ArtifactRef { digest: digest.clone(), bytes: 0, kind: ArtifactKind::File }
}

#[tokio::test]
async fn a_blob_is_fetched_once_and_steps_cannot_spoil_it() {
    let server = TestOrchestrator::start().await;
    let data = tempfile::tempdir().unwrap();
    let tools = server.tools(data.path());
    let blob = file(&server.store(b"model"));
    for name in ["a", "b"] {
        let to = data.path().join(name);
        tools.blobs.lay_out(&blob, &to, Access::ReadWrite).await.unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"model");
        std::fs::write(&to, "spoiled").unwrap();
    }
    assert_eq!(server.seen().downloads, 1);

    // A worker that starts anew finds it on disk.
    let again = server.tools(data.path());
    again.blobs.lay_out(&blob, &data.path().join("c"), Access::ReadOnly).await.unwrap();
    assert_eq!(server.seen().downloads, 1);
}

#[tokio::test]
async fn a_damaged_blob_is_never_used() {
    let server = TestOrchestrator::start().await;
    let data = tempfile::tempdir().unwrap();
    let tools = server.tools(data.path());
    let digest = server.store(b"model");
    server.seen().blobs.insert(digest.clone(), b"other".to_vec());
    let to = data.path().join("a");
    let refused = tools.blobs.lay_out(&file(&digest), &to, Access::ReadWrite).await.unwrap_err();
    assert!(matches!(refused, BlobError::Damaged(_)), "{refused}");
    assert!(!to.exists());
    let left: Vec<_> = std::fs::read_dir(data.path().join("blobs")).unwrap().flatten().collect();
    assert!(left.iter().all(|entry| entry.file_name() == BOOT), "{left:?}");
}

#[tokio::test]
async fn the_least_recently_used_leave_a_full_cache() {
    let server = TestOrchestrator::start().await;
    let data = tempfile::tempdir().unwrap();
    let tools = server.tools(data.path());
    let blobs: Vec<ArtifactRef> = (0..6_u8).map(|n| file(&server.store(&vec![n; 300_000]))).collect();
    for (index, blob) in blobs.iter().enumerate() {
        let to = data.path().join(index.to_string());
        tools.blobs.lay_out(blob, &to, Access::ReadWrite).await.unwrap();
        tools
            .blobs
            .lay_out(&blobs[0], &data.path().join(format!("{index}-again")), Access::ReadWrite)
            .await
            .unwrap();
    }
    let kept: u64 = std::fs::read_dir(data.path().join("blobs"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(kept <= 1024 * 1024 + 100, "{kept} bytes in a cache of 1 MiB");
    assert!(tools.blobs.cache.path(&blobs[0].digest).exists(), "the one in use was evicted");
}

#[tokio::test]
async fn a_tree_that_leaves_its_folder_is_refused() {
    let server = TestOrchestrator::start().await;
    let data = tempfile::tempdir().unwrap();
    let tools = server.tools(data.path());
    let digest = server.store_tree(&[("../outside", "x", false)]);
    let refused =
        tools.blobs.lay_out_tree(&digest, &data.path().join("in"), Access::ReadWrite).await.unwrap_err();
    assert!(matches!(refused, BlobError::NotATree { .. }), "{refused}");
    assert!(!data.path().join("outside").exists());
}

/// A file of so many bytes, and what it is known by.
fn made(data: &Path, bytes: usize) -> BTreeMap<Digest, Content> {
    let content: Vec<u8> = (0..bytes).map(|place| (place / 4096 % 251) as u8).collect();
    let path = data.join(format!("made-{bytes}"));
    std::fs::write(&path, &content).unwrap();
    BTreeMap::from([(Digest::of(&content), Content::File(path, bytes as u64))])
}

#[tokio::test]
async fn an_upload_goes_on_where_it_was_and_a_damaged_piece_is_sent_again() {
    let server = TestOrchestrator::start().await;
    let data = tempfile::tempdir().unwrap();
    let tools = server.tools(data.path());
    let piece = usize::try_from(PIECE_BYTES).unwrap();
    let blobs = made(data.path(), 3 * piece + 10);
    let (digest, content) = blobs.first_key_value().unwrap();
    server.seen().uploads.insert(digest.clone(), content.read(0, 2 * PIECE_BYTES).unwrap());
    server.seen().damage = 2;
    tools.blobs.hand_over(&blobs).await.unwrap();
    assert!(server.seen().blobs.contains_key(digest));
    let pieces = server.seen().calls.iter().filter(|call| **call == "put_piece").count();
    assert_eq!(pieces, 4, "the third one three times, and the last");

    server.seen().damage = 100;
    let other = made(data.path(), 5);
    let refused = tools.blobs.hand_over(&other).await.unwrap_err();
    assert!(matches!(refused, BlobError::Refused { .. }), "{refused}");
}

#[tokio::test]
async fn a_folder_larger_than_the_cache_is_laid_out_all_the_same() {
    let server = TestOrchestrator::start().await;
    let data = tempfile::tempdir().unwrap();
    let tools = server.tools(data.path());
    let texts: Vec<String> = (0..12).map(|number| number.to_string().repeat(300_000)).collect();
    let paths: Vec<String> = (0..12).map(|number| format!("part-{number}")).collect();
    let files: Vec<(&str, &str, bool)> =
        paths.iter().zip(&texts).map(|(path, text)| (path.as_str(), text.as_str(), false)).collect();
    let digest = server.store_tree(&files);
    let to = data.path().join("in");
    tools.blobs.lay_out_tree(&digest, &to, Access::ReadWrite).await.unwrap();
    for (path, text) in paths.iter().zip(&texts) {
        assert!(std::fs::read_to_string(to.join(path)).unwrap() == *text, "{path}");
    }
}
