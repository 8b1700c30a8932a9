//! Blobs in the store: content that is what its digest says, kept once, wherever the settings let its bytes be.

use std::path::{Path, PathBuf};

use futures_util::{StreamExt, stream};
use refit_orchestrator::config::{AccessKey, BlobPlace, BlobPlaces, Bucket, Secret};
use refit_orchestrator::engine::Piece;
use refit_tests::services::S3;

use super::*;

/// Each test with the bytes in the databases, in a folder and in a bucket.
macro_rules! in_every_place {
    ($($test:ident)*) => {
        in_every_place!(sqlite: Stand::new(services::sqlite(), BlobPlaces::default()); $($test)*);
        in_every_place!(postgres: Stand::new(services::postgres().await, BlobPlaces::default()); $($test)*);
        in_every_place!(folder: Stand::in_folder(services::postgres().await); $($test)*);
        in_every_place!(bucket: Stand::in_bucket(services::sqlite()).await; $($test)*);
    };
    ($place:ident: $stand:expr; $($test:ident)*) => {
        mod $place {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test($stand).await;
            })*
        }
    };
}

in_every_place! {
    blobs_are_what_their_digest_says
    a_blob_comes_in_pieces_to_any_orchestrator
    what_stood_still_for_a_day_begins_again
    what_nothing_refers_to_goes_from_where_it_is
    what_is_small_or_a_list_of_files_is_in_the_database
}

/// A database, and where the bytes of its blobs are.
struct Stand {
    database: Database,
    blobs: BlobPlaces,
    /// Where files are that hold bytes, with what keeps them there.
    files: Option<PathBuf>,
    _folder: Option<tempfile::TempDir>,
    bucket: Option<S3>,
}

impl Stand {
    fn new(database: Database, blobs: BlobPlaces) -> Self {
        Self { database, blobs, files: None, _folder: None, bucket: None }
    }

    fn in_folder(database: Database) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // It is not there yet.
        let files = folder.path().join("blobs");
        let blobs = BlobPlaces { new: Some(BlobPlace::Folder(files.clone())), earlier: Vec::new() };
        Self { database, blobs, files: Some(files), _folder: Some(folder), bucket: None }
    }

    async fn in_bucket(database: Database) -> Self {
        let bucket = S3::start().await;
        let blobs = BlobPlaces { new: Some(place_in(&bucket, S3::SECRET)), earlier: Vec::new() };
        let files = Some(bucket.bucket().join("some/where"));
        Self { database, blobs, files, _folder: None, bucket: Some(bucket) }
    }

    async fn house(&self) -> House {
        house(&self.database, self.blobs.clone()).await
    }

    /// The bytes that are kept, of blobs and of uploads.
    async fn bytes_kept(&self) -> u64 {
        self.bytes_in_database().await + self.files.as_deref().map_or(0, bytes_below)
    }

    async fn bytes_in_database(&self) -> u64 {
        let sum = "SELECT COALESCE(SUM(LENGTH(data)), 0) FROM blob_chunks";
        self.database.number(sum).await.unsigned_abs()
    }
}

async fn house(database: &Database, blobs: BlobPlaces) -> House {
    House::open_with(database, |config| config.blobs = blobs).await
}

fn place_in(bucket: &S3, secret: &str) -> BlobPlace {
    BlobPlace::Bucket(Bucket {
        name: S3::BUCKET.to_owned(),
        prefix: Some("some/where".to_owned()),
        endpoint: Some(bucket.endpoint()),
        region: None,
        key: Some(AccessKey { id: Secret::new(S3::KEY_ID), secret: Secret::new(secret) }),
    })
}

/// What the files in folders of it have; the mark of a place is not in one.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let folders = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    folders.map(|path| files_in(&path).iter().map(|file| file.metadata().unwrap().len()).sum::<u64>()).sum()
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files_in(&path) } else { vec![path] }).collect()
}

async fn put(house: &House, content: &[u8]) -> Result<Digest, EngineError> {
    let digest = Digest::of(content);
    let body = stream::iter([Ok::<_, String>(bytes::Bytes::copy_from_slice(content))]);
    house.engine.put_blob(digest.clone(), body).await?;
    Ok(digest)
}

async fn get(house: &House, digest: &Digest, from: u64) -> Result<Vec<u8>, EngineError> {
    let blob = house.engine.find_blob(digest).await?;
    let parts = house.engine.read_blob(blob, from).await?;
    let parts: Vec<bytes::Bytes> = parts.map(|part| part.unwrap()).collect().await;
    Ok(parts.concat())
}

const MIB: usize = 1024 * 1024;

fn content(bytes: usize) -> bytes::Bytes {
    (0..bytes).map(|place| u8::try_from(place / 4096 % 251).unwrap()).collect::<Vec<u8>>().into()
}

fn piece(content: &bytes::Bytes, range: std::ops::Range<usize>) -> Piece {
    let (from, of) = (range.start as u64, content.len() as u64);
    let data = content.slice(range);
    Piece { from, of, digest: Digest::of(&data), data }
}

fn kind(refused: EngineError) -> &'static str {
    match refused {
        EngineError::Refused { kind, .. } => kind,
        EngineError::Invalid { .. } => "invalid",
        other => panic!("{other}"),
    }
}

async fn a_blob_comes_in_pieces_to_any_orchestrator(stand: Stand) {
    let houses = (stand.house().await, stand.house().await);
    let (one, other) = (&houses.0.engine, &houses.1.engine);
    let content = content(6 * MIB + 5);
    let digest = Digest::of(&content);
    let put = async |engine: &Engine, piece| engine.put_piece(digest.clone(), piece).await;
    let part = |bytes| UploadView { bytes, whole: false };
    assert_eq!(one.upload(&digest).await.unwrap(), part(0));

    for bad in [piece(&content, 0..5), piece(&content, 5..MIB + 5), piece(&content, 0..5 * MIB)] {
        assert_eq!(kind(put(one, bad).await.unwrap_err()), "invalid");
    }
    let mut damaged = piece(&content, 0..4 * MIB);
    damaged.data = content.slice(MIB..5 * MIB);
    assert_eq!(kind(put(one, damaged).await.unwrap_err()), "damaged-piece");
    assert_eq!(kind(put(one, piece(&content, MIB..2 * MIB)).await.unwrap_err()), "wrong-offset");
    assert_eq!(one.upload(&digest).await.unwrap(), part(0), "what was refused is not kept");

    // Both at once: one is first, the other is told where to go on.
    let (left, right) =
        tokio::join!(put(one, piece(&content, 0..4 * MIB)), put(other, piece(&content, 0..4 * MIB)));
    let late = match (left, right) {
        (Ok(view), Err(late)) | (Err(late), Ok(view)) if view.bytes == 4 * MIB as u64 => late,
        both => panic!("{both:?}"),
    };
    assert_eq!(kind(late), "wrong-offset");
    assert_eq!(one.missing(vec![digest.clone()]).await.unwrap(), std::slice::from_ref(&digest));
    let whole = put(other, piece(&content, 4 * MIB..content.len())).await.unwrap();
    assert!(whole.whole && put(one, piece(&content, 0..4 * MIB)).await.unwrap().whole);
    for from in [0, 1, MIB, 3 * MIB + 7, content.len()] {
        assert!(get(&houses.0, &digest, from as u64).await.unwrap() == content[from..], "from {from}");
    }

    // What does not have the digest it was to have is not kept.
    let claimed = Digest::of(b"something else");
    let all = piece(&content.slice(..MIB), 0..MIB);
    assert_eq!(kind(one.put_piece(claimed.clone(), all).await.unwrap_err()), "invalid");
    assert_eq!(one.upload(&claimed).await.unwrap(), part(0));
    let none = piece(&bytes::Bytes::new(), 0..0);
    assert!(one.put_piece(Digest::of(b""), none).await.unwrap().whole);
}

async fn what_stood_still_for_a_day_begins_again(stand: Stand) {
    let house = stand.house().await;
    let content = content(3 * MIB);
    let digest = Digest::of(&content);
    let first = || piece(&content, 0..2 * MIB);
    house.engine.put_piece(digest.clone(), first()).await.unwrap();
    house.engine.collect_blobs().await.unwrap();
    assert_eq!(house.engine.upload(&digest).await.unwrap().bytes, 2 * MIB as u64);
    let old = "UPDATE blob_uploads SET touched_at = touched_at - 90000000";
    execute(&stand.database, old.to_owned()).await;
    house.engine.collect_blobs().await.unwrap();
    assert_eq!(stand.bytes_kept().await, 0);
    let rest = piece(&content, 2 * MIB..3 * MIB);
    let late = house.engine.put_piece(digest.clone(), rest.clone()).await.unwrap_err();
    assert_eq!(kind(late), "wrong-offset");
    house.engine.put_piece(digest.clone(), first()).await.unwrap();
    assert!(house.engine.put_piece(digest, rest).await.unwrap().whole);
}

async fn blobs_are_what_their_digest_says(stand: Stand) {
    let house = stand.house().await;
    // More than a piece, and the last one is none.
    let content: Vec<u8> =
        (0..5_000_000u32).map(|number| number.to_le_bytes()[number as usize % 4]).collect();
    let digest = Digest::of(&content);
    let parts = |bytes: &[u8]| {
        let parts: Vec<Result<bytes::Bytes, String>> =
            bytes.chunks(70_000).map(|part| Ok(bytes::Bytes::copy_from_slice(part))).collect();
        stream::iter(parts)
    };
    assert_eq!(house.engine.missing(vec![digest.clone()]).await.unwrap(), std::slice::from_ref(&digest));
    let wrong = house.engine.put_blob(digest.clone(), parts(&content[1..])).await.unwrap_err();
    assert!(wrong.to_string().contains("digest"), "{wrong}");
    let broken = stream::iter([Ok(bytes::Bytes::from_static(b"abc")), Err("gone".to_owned())]);
    assert!(house.engine.put_blob(digest.clone(), broken).await.is_err());
    for _ in 0..2 {
        house.engine.put_blob(digest.clone(), parts(&content)).await.unwrap();
    }
    put(&house, b"").await.unwrap();
    let whole = content[..4 * MIB].to_vec();
    let exact = put(&house, &whole).await.unwrap();
    for (digest, content) in [(&digest, &content), (&exact, &whole)] {
        assert!(get(&house, digest, 0).await.unwrap() == *content);
        assert_eq!(house.engine.find_blob(digest).await.unwrap().bytes, content.len() as u64);
    }
    assert!(get(&house, &Digest::of(b""), 0).await.unwrap().is_empty());
    assert!(house.engine.missing(vec![digest]).await.unwrap().is_empty());
    house.engine.collect_blobs().await.unwrap();
    let kept = stand.bytes_kept().await;
    assert_eq!(kept, 5_000_000 + 4 * MIB as u64, "what was refused is not kept, nor what came again");
}

async fn what_nothing_refers_to_goes_from_where_it_is(stand: Stand) {
    let house = stand.house().await;
    let digest = put(&house, &content(5 * MIB)).await.unwrap();
    let young = put(&house, &content(MIB)).await.unwrap();
    execute(&stand.database, format!("UPDATE blobs SET touched_at = 1 WHERE digest = '{digest}'")).await;
    assert_eq!(house.engine.collect_blobs().await.unwrap(), 1);
    assert_eq!(stand.bytes_kept().await, MIB as u64);
    assert!(get(&house, &young, 0).await.is_ok() && get(&house, &digest, 0).await.is_err());
    for table in ["blob_uploads", "blob_objects WHERE upload NOT IN (SELECT upload FROM blobs)"] {
        assert_eq!(stand.database.number(&format!("SELECT COUNT(*) FROM {table}")).await, 0, "{table}");
    }
}

async fn what_is_small_or_a_list_of_files_is_in_the_database(stand: Stand) {
    let house = stand.house().await;
    let files = (0..3000).map(|number| TreeFile {
        path: format!("{number:04}"),
        digest: Digest::of(b"a"),
        bytes: 1,
        executable: false,
    });
    let list = Tree { files: files.collect() }.to_json();
    let small = content(64 * 1024);
    for kept in [list.as_bytes(), &small] {
        put(&house, kept).await.unwrap();
    }
    let both = (list.len() + small.len()) as u64;
    assert!(list.len() > 64 * 1024);
    assert_eq!((stand.bytes_in_database().await, stand.bytes_kept().await), (both, both));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_kept_elsewhere_before_stays_readable_and_goes_from_there() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), S3::start().await);
    let (database, folder) = (services::sqlite(), BlobPlace::Folder(folder.path().join("blobs")));
    let BlobPlace::Folder(files) = &folder else { panic!("no folder") };
    let [one, two, three] = [content(MIB), content(2 * MIB), content(3 * MIB)];
    let settings = |new: Option<&BlobPlace>, earlier: &[&BlobPlace]| BlobPlaces {
        new: new.cloned(),
        earlier: earlier.iter().map(|place| (*place).clone()).collect(),
    };
    let first = house(&database, settings(None, &[])).await;
    let one_digest = put(&first, &one).await.unwrap();
    let second = house(&database, settings(Some(&folder), &[])).await;
    let two_digest = put(&second, &two).await.unwrap();
    let started = piece(&three, 0..MIB);
    second.engine.put_piece(Digest::of(&three), started).await.unwrap();

    let objects = bucket.bucket().join("some/where");
    let in_bucket = place_in(&bucket, S3::SECRET);
    let third = house(&database, settings(Some(&in_bucket), &[&folder])).await;
    // One that is on its way goes on where it has begun.
    third.engine.put_piece(Digest::of(&three), piece(&three, MIB..3 * MIB)).await.unwrap();
    let four = content(4 * MIB);
    let four_digest = put(&third, &four).await.unwrap();
    for content in [&one, &two, &three, &four] {
        assert!(get(&third, &Digest::of(content), 0).await.unwrap() == **content);
    }
    assert_eq!((bytes_below(files), bytes_below(&objects)), (5 * MIB as u64, 4 * MIB as u64));

    let five = content(5 * MIB);
    second.engine.put_piece(Digest::of(&five), piece(&five, 0..4 * MIB)).await.unwrap();
    let fourth = house(&database, settings(Some(&in_bucket), &[])).await;
    let lost = fourth.engine.put_piece(Digest::of(&five), piece(&five, 4 * MIB..5 * MIB)).await.unwrap_err();
    assert!(lost.to_string().contains("but 0 bytes are there"), "{lost}");
    let told = get(&fourth, &two_digest, 0).await.unwrap_err().to_string();
    assert!(
        told.contains(&format!("{}, which `blobs`", files.display())) && told.contains("`earlier`"),
        "{told}"
    );
    execute(&database, format!("UPDATE blobs SET touched_at = 1 WHERE digest <> '{one_digest}'")).await;
    execute(&database, "UPDATE blob_uploads SET touched_at = 1".to_owned()).await;
    assert_eq!(fourth.engine.collect_blobs().await.unwrap(), 3);
    assert_eq!((bytes_below(files), bytes_below(&objects)), (9 * MIB as u64, 0));
    // The other one has the duty for a while.
    fourth.engine.store().void_duties().await.unwrap();
    third.engine.collect_blobs().await.unwrap();
    assert_eq!(bytes_below(files), 0, "what could not be reached is taken out later");
    assert!(get(&third, &four_digest, 0).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_not_the_one_is_refused() {
    let stand = Stand::in_folder(services::sqlite());
    let files = stand.files.as_deref().unwrap();
    let digest = put(&stand.house().await, &content(MIB)).await.unwrap();
    let mark = std::fs::read_to_string(files.join("refit-blobs")).unwrap();
    // As after a start without the network share.
    std::fs::rename(files, files.with_extension("mounted")).unwrap();
    std::fs::create_dir(files).unwrap();
    let house = stand.house().await;
    for told in [
        put(&house, &content(2 * MIB)).await.unwrap_err().to_string(),
        get(&house, &digest, 0).await.unwrap_err().to_string(),
    ] {
        assert!(told.contains("is it mounted") && told.contains(&mark), "{told}");
    }
    assert_eq!(std::fs::read_dir(files).unwrap().count(), 0, "nothing is written there");
    assert!(put(&house, b"small").await.is_ok());
    std::fs::remove_dir(files).unwrap();
    std::fs::rename(files.with_extension("mounted"), files).unwrap();
    assert!(get(&house, &digest, 0).await.is_ok(), "it is tried again");

    // A file that somebody took out is told, and not as an end of the blob.
    for file in files_in(files).into_iter().filter(|file| !file.ends_with("refit-blobs")) {
        std::fs::remove_file(file).unwrap();
    }
    let told = get(&house, &digest, 0).await.unwrap_err().to_string();
    assert!(told.contains("is gone or was cut short"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_answer_or_knows_another_key_is_told_and_tried_again() {
    let mut stand = Stand::in_bucket(services::sqlite()).await;
    let (house, content) = (stand.house().await, content(MIB));
    let digest = put(&house, &content).await.unwrap();
    stand.bucket.as_mut().unwrap().pause().await;
    let EngineError::Store(wrong) = put(&house, &content[1..]).await.unwrap_err() else { panic!("stored") };
    assert!(
        wrong.to_string().starts_with("failed to write to s3://refit-test/some/where at http://"),
        "{wrong}"
    );
    execute(&stand.database, "UPDATE blobs SET touched_at = 1".to_owned()).await;
    assert_eq!(house.engine.collect_blobs().await.unwrap(), 1);
    stand.bucket.as_mut().unwrap().resume().await;
    assert!(get(&house, &digest, 0).await.is_err());
    assert!(stand.bytes_kept().await > 0);
    house.engine.collect_blobs().await.unwrap();
    assert_eq!(stand.bytes_kept().await, 0);
    let again = put(&house, &content[1..]).await.unwrap();
    assert!(get(&house, &again, 7).await.unwrap() == content[8..]);

    let key = place_in(stand.bucket.as_ref().unwrap(), "another-secret");
    let stranger = self::house(&stand.database, BlobPlaces { new: Some(key), earlier: Vec::new() }).await;
    let told = put(&stranger, &content[2..]).await.unwrap_err().to_string();
    assert!(told.contains("check the key") && !told.contains("another-secret"), "{told}");
}
