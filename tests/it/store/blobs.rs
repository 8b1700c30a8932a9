//! Blobs in the store: content that is what its digest says, kept once.

use futures_util::{StreamExt, stream};
use refit_orchestrator::engine::Piece;

use super::*;

on_both_databases! {
    blobs_are_what_their_digest_says
    a_blob_comes_in_pieces_to_any_orchestrator
    what_stood_still_for_a_day_begins_again
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

async fn a_blob_comes_in_pieces_to_any_orchestrator(database: Database) {
    let houses = (House::open(&database).await, House::open(&database).await);
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
        let (bytes, chunks) = one.get_blob(&digest, from as u64).await.unwrap();
        let chunks: Vec<bytes::Bytes> = chunks.map(|chunk| chunk.unwrap()).collect().await;
        assert!(bytes == content.len() as u64 && chunks.concat() == content[from..], "from {from}");
    }

    // What does not have the digest it was to have is not kept.
    let claimed = Digest::of(b"something else");
    let all = piece(&content.slice(..MIB), 0..MIB);
    assert_eq!(kind(one.put_piece(claimed.clone(), all).await.unwrap_err()), "invalid");
    assert_eq!(one.upload(&claimed).await.unwrap(), part(0));
    let none = piece(&bytes::Bytes::new(), 0..0);
    assert!(one.put_piece(Digest::of(b""), none).await.unwrap().whole);
}

async fn what_stood_still_for_a_day_begins_again(database: Database) {
    let house = House::open(&database).await;
    let content = content(3 * MIB);
    let digest = Digest::of(&content);
    let first = || piece(&content, 0..2 * MIB);
    house.engine.put_piece(digest.clone(), first()).await.unwrap();
    house.engine.collect_blobs().await.unwrap();
    assert_eq!(house.engine.upload(&digest).await.unwrap().bytes, 2 * MIB as u64);
    execute(&database, "UPDATE blob_uploads SET touched_at = touched_at - 90000000".to_owned()).await;
    house.engine.collect_blobs().await.unwrap();
    assert_eq!(database.number("SELECT COUNT(*) FROM blob_chunks").await, 0);
    let rest = piece(&content, 2 * MIB..3 * MIB);
    let late = house.engine.put_piece(digest.clone(), rest.clone()).await.unwrap_err();
    assert_eq!(kind(late), "wrong-offset");
    house.engine.put_piece(digest.clone(), first()).await.unwrap();
    assert!(house.engine.put_piece(digest, rest).await.unwrap().whole);
}

async fn blobs_are_what_their_digest_says(database: Database) {
    let house = House::open(&database).await;
    let content: Vec<u8> =
        (0..3_000_000u32).map(|number| number.to_le_bytes()[number as usize % 4]).collect();
    let digest = Digest::of(&content);
    let pieces = |bytes: &[u8]| {
        let pieces: Vec<Result<bytes::Bytes, String>> =
            bytes.chunks(70_000).map(|piece| Ok(bytes::Bytes::copy_from_slice(piece))).collect();
        stream::iter(pieces)
    };
    assert_eq!(house.engine.missing(vec![digest.clone()]).await.unwrap(), std::slice::from_ref(&digest));
    let wrong = house.engine.put_blob(digest.clone(), pieces(&content[1..])).await.unwrap_err();
    assert!(wrong.to_string().contains("digest"), "{wrong}");
    let broken = stream::iter([Ok(bytes::Bytes::from_static(b"abc")), Err("gone".to_owned())]);
    assert!(house.engine.put_blob(digest.clone(), broken).await.is_err());
    assert_eq!(database.number("SELECT COUNT(*) FROM blob_chunks").await, 0, "what was refused is not kept");
    for _ in 0..2 {
        house.engine.put_blob(digest.clone(), pieces(&content)).await.unwrap();
    }
    house.engine.put_blob(Digest::of(b""), pieces(b"")).await.unwrap();
    let (bytes, chunks) = house.engine.get_blob(&digest, 0).await.unwrap();
    let chunks: Vec<bytes::Bytes> = chunks.map(|chunk| chunk.unwrap()).collect().await;
    assert_eq!(bytes, 3_000_000);
    assert!(chunks.concat() == content);
    assert_eq!(database.number("SELECT COUNT(*) FROM blob_chunks").await, 3, "kept once");
    assert!(house.engine.missing(vec![digest]).await.unwrap().is_empty());
}
