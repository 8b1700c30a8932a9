//! Blobs in the store: content that is what its digest says, kept once.

use futures_util::{StreamExt, stream};

use super::*;

on_both_databases! {
    blobs_are_what_their_digest_says
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
    let (bytes, chunks) = house.engine.get_blob(&digest).await.unwrap();
    let chunks: Vec<bytes::Bytes> = chunks.map(|chunk| chunk.unwrap()).collect().await;
    assert_eq!(bytes, 3_000_000);
    assert!(chunks.concat() == content);
    assert_eq!(database.number("SELECT COUNT(*) FROM blob_chunks").await, 3, "kept once");
    assert!(house.engine.missing(vec![digest]).await.unwrap().is_empty());
}
