//! Blobs that nothing refers to go, a bounded piece a transaction. What refers to one: a workflow's current definition and
//! that of every run there is (its bundle); runs, their steps and their journal; checkpoints; what steps came to before
//! (`cache`); versions of models; runs that other runs asked for; and a list of a folder's files. Must never happen here: a
//! blob that goes while one of these names it, or after somebody who is about to refer to it was told that it is here.
//!
//! How that is made sure: references are looked for in one view of the whole database and in whatever is kept as text, so
//! that none is missed for the form it has. One that comes later copies one that was seen, or names a blob that has come or
//! was touched meanwhile; and only what was not touched goes. Lists of files go before files, so that what a list names is
//! there as long as the list is. Of bytes that are in a place (`places`), the objects go after the blob's row and before
//! the upload's; where that fails, the upload's row is there for the next time.

use std::collections::HashSet;

use refit_workflows::digest::Digest;
use refit_workflows::wire::TREE_BYTES_MAX;

use super::blobs::{BLOB_AGE, chunk_in};
use super::database::{Row, Transaction, sql};
use super::{Store, StoreError};

/// How many blobs are looked at together: the digest of each is in memory.
const CANDIDATES_MAX: usize = 100_000;
/// How many rows that may name a blob are read at a time.
const PAGE: i64 = 100;
/// How many blobs one transaction takes out.
const DROPS_MAX: usize = 50;
/// How many chunks one transaction takes out.
const CHUNKS_MAX: i64 = 32;
/// How a digest begins, and how many bytes it has.
const DIGEST_BEGINS: &[u8] = b"sha256:";
const DIGEST_BYTES: usize = 71;

const CANDIDATES: &str = "SELECT digest FROM blobs WHERE tree = $1 AND touched_at < $2 AND digest > $3
    ORDER BY digest LIMIT $4";
const TREES: &str = "SELECT digest, upload FROM blobs WHERE tree = 1 AND bytes <= $1 AND digest > $2
    ORDER BY digest LIMIT $3";
const DROP_BLOB: &str = "DELETE FROM blobs WHERE digest = $1 AND touched_at < $2 RETURNING upload, place";
const GIVE_OUT: &str =
    "INSERT INTO blob_uploads (upload, place, bytes, hash, touched_at) VALUES ($1, $2, 0, $3, 0)";

const OLD_UPLOADS: &str =
    "SELECT upload, place FROM blob_uploads WHERE touched_at < $1 AND upload > $2 ORDER BY upload LIMIT $3";
const GIVE_UP: &str =
    "UPDATE blob_uploads SET digest = NULL, touched_at = 0 WHERE upload = $1 AND touched_at < $2";
const DROP_CHUNKS: &str = "DELETE FROM blob_chunks WHERE upload = $1
    AND chunk IN (SELECT c.chunk FROM blob_chunks c WHERE c.upload = $1 ORDER BY c.chunk LIMIT $2)";
const DROP_OBJECTS: &str = "DELETE FROM blob_objects WHERE upload = $1";
const DROP_UPLOAD: &str = "DELETE FROM blob_uploads WHERE upload = $1";

const BUNDLES: &str = "SELECT bundle AS text FROM definitions WHERE bundle IS NOT NULL AND digest IN
    (SELECT definition FROM runs UNION SELECT definition FROM workflows WHERE deleted_at IS NULL)";

/// Where a page of rows ends, and the texts of a page that name a digest.
macro_rules! texts {
    ($table:literal, $key:literal, $text:literal) => {
        (
            concat!(
                "SELECT MAX(place) AS last FROM (SELECT ",
                $key,
                " AS place FROM ",
                $table,
                " WHERE ",
                $key,
                " > $1 ORDER BY ",
                $key,
                " LIMIT $2) AS page"
            ),
            concat!(
                "SELECT ",
                $text,
                " AS text FROM ",
                $table,
                " WHERE ",
                $key,
                " > $1 AND ",
                $key,
                " <= $2 AND ",
                $text,
                " LIKE '%sha256:%'"
            ),
        )
    };
}

/// Whatever with an integer key may name a blob.
const TEXTS: [(&str, &str); 7] = [
    texts!("runs", "id", "(facts || head)"),
    texts!("steps", "run", "body"),
    texts!("journal", "run", "input"),
    texts!("checkpoints", "run", "artifact"),
    texts!("cache", "run", "results"),
    texts!("versions", "run", "(artifact_ref || evidence)"),
    texts!("children", "seq", "(body || COALESCE(result, ''))"),
];

/// Lists of files, or the others.
#[derive(Clone, Copy)]
enum Kind {
    Trees,
    Files,
}

impl Store {
    /// Takes out the blobs that nothing refers to and nobody has touched for [`BLOB_AGE`], and uploads that stood still for
    /// as long; answers how many blobs went. Stops early where another orchestrator is at it.
    pub async fn collect_blobs(&self, holder: &str) -> Result<u64, StoreError> {
        let before = self.clock().now().minus(BLOB_AGE).as_millis();
        let mut gone = 0;
        for kind in [Kind::Trees, Kind::Files] {
            let mut after = String::new();
            loop {
                let (unnamed, last) = self.unnamed_blobs(kind, before, after).await?;
                let Some(last) = last else { break };
                gone += self.drop_blobs(unnamed, before, holder).await?;
                after = last;
            }
        }
        self.drop_old_uploads(before, holder).await?;
        Ok(gone)
    }

    /// Those of the old blobs after `after` that nothing names, and the last one looked at.
    async fn unnamed_blobs(
        &self,
        kind: Kind,
        before: i64,
        after: String,
    ) -> Result<(Vec<Digest>, Option<String>), StoreError> {
        self.durably(move |store| {
            let after = after.clone();
            async move {
                let mut tx = store.database().read().await?;
                let limit = i64::try_from(CANDIDATES_MAX).unwrap_or(i64::MAX);
                let tree = match kind {
                    Kind::Trees => 1_i64,
                    Kind::Files => 0,
                };
                let page = sql(CANDIDATES).bind(tree).bind(before).bind(&after).bind(limit);
                let rows = tx.all(page).await?;
                let last = rows.last().map(|row| row.text("digest")).transpose()?;
                let mut open: HashSet<Digest> =
                    rows.iter().map(|row| row.parsed("digest")).collect::<Result<_, _>>()?;
                drop(rows);
                if !open.is_empty() {
                    spare_what_rows_name(&mut tx, &mut open).await?;
                    spare_what_trees_name(&mut tx, &mut open).await?;
                }
                let mut unnamed: Vec<Digest> = open.into_iter().collect();
                // In the order in which others touch them.
                unnamed.sort_unstable();
                Ok((unnamed, last))
            }
        })
        .await
    }

    async fn drop_blobs(&self, unnamed: Vec<Digest>, before: i64, holder: &str) -> Result<u64, StoreError> {
        let mut gone = 0;
        for some in unnamed.chunks(DROPS_MAX) {
            let some = some.to_vec();
            let dropped = self
                .piece(holder, move |mut tx: Transaction| {
                    let some = some.clone();
                    async move {
                        let mut dropped = 0;
                        for digest in &some {
                            let drop = sql(DROP_BLOB).bind(digest.as_str()).bind(before);
                            if let Some(row) = tx.first(drop).await? {
                                let out = sql(GIVE_OUT).bind(row.text("upload")?);
                                tx.execute(out.bind(row.opt_text("place")?).bind(Vec::new())).await?;
                                dropped += 1;
                            }
                        }
                        Ok((tx, Some(dropped)))
                    }
                })
                .await?;
            let Some(dropped) = dropped else { break };
            gone += dropped;
        }
        Ok(gone)
    }

    /// Takes out the bytes of uploads that were given up or stood still, and of blobs that are gone.
    async fn drop_old_uploads(&self, before: i64, holder: &str) -> Result<(), StoreError> {
        let mut after = String::new();
        // One that does not answer is left alone until the next time.
        let mut out_of_reach = HashSet::new();
        loop {
            let place = after.clone();
            let old: Vec<(String, Option<String>)> = self
                .durably::<_, StoreError, _, _>(move |store| {
                    let page = sql(OLD_UPLOADS).bind(before).bind(&place).bind(PAGE);
                    async move {
                        let mut tx = store.database().read().await?;
                        let rows = tx.all(page).await?;
                        rows.iter().map(|row| Ok((row.text("upload")?, row.opt_text("place")?))).collect()
                    }
                })
                .await?;
            let Some((last, _)) = old.last().cloned() else { return Ok(()) };
            for (upload, place) in old {
                let Some(place) = place else {
                    while self.drop_chunks(&upload, before, holder).await? {}
                    continue;
                };
                if out_of_reach.contains(&place) {
                    continue;
                }
                match self.drop_elsewhere(&upload, &place, before, holder).await {
                    Err(error @ StoreError::Blobs(_)) => {
                        tracing::warn!(%error, "bytes of blobs that are gone stay for now");
                        out_of_reach.insert(place);
                    }
                    done => done?,
                }
            }
            after = last;
        }
    }

    /// Takes out an upload whose bytes are in a place.
    async fn drop_elsewhere(
        &self,
        upload: &str,
        place: &str,
        before: i64,
        holder: &str,
    ) -> Result<(), StoreError> {
        let name = upload.to_owned();
        let given_up = self
            .piece(holder, move |mut tx: Transaction| {
                let give_up = sql(GIVE_UP).bind(&name).bind(before);
                // Somebody may have gone on with it.
                async move {
                    let rows = tx.execute(give_up).await?;
                    Ok((tx, (rows > 0).then_some(())))
                }
            })
            .await?;
        if given_up.is_none() {
            return Ok(());
        }
        self.drop_objects(place, upload).await?;
        let name = upload.to_owned();
        self.piece(holder, move |mut tx: Transaction| {
            let (objects, upload) = (sql(DROP_OBJECTS).bind(&name), sql(DROP_UPLOAD).bind(&name));
            async move {
                tx.execute(objects).await?;
                tx.execute(upload).await?;
                Ok((tx, Some(())))
            }
        })
        .await?;
        Ok(())
    }

    /// True: there may be more.
    async fn drop_chunks(&self, upload: &str, before: i64, holder: &str) -> Result<bool, StoreError> {
        let upload = upload.to_owned();
        let more = self
            .piece(holder, move |mut tx: Transaction| {
                let upload = upload.clone();
                async move {
                    // Somebody may have gone on with it.
                    if tx.execute(sql(GIVE_UP).bind(&upload).bind(before)).await? == 0 {
                        return Ok((tx, None));
                    }
                    let dropped = tx.execute(sql(DROP_CHUNKS).bind(&upload).bind(CHUNKS_MAX)).await?;
                    if dropped == 0 {
                        tx.execute(sql(DROP_UPLOAD).bind(&upload)).await?;
                    }
                    Ok((tx, Some(dropped > 0)))
                }
            })
            .await?;
        Ok(more.unwrap_or(false))
    }
}

async fn spare_what_rows_name(tx: &mut Transaction, open: &mut HashSet<Digest>) -> Result<(), StoreError> {
    let spare = |rows: Vec<Row>, open: &mut HashSet<Digest>| {
        rows.iter().try_for_each(|row| {
            Names::default().read(row.text("text")?.as_bytes(), |digest| {
                open.remove(&digest);
            });
            Ok::<_, StoreError>(())
        })
    };
    spare(tx.all(sql(BUNDLES)).await?, open)?;
    for (page, texts) in TEXTS {
        let mut after = i64::MIN;
        while let Some(last) = tx.one(sql(page).bind(after).bind(PAGE)).await?.opt_int("last")? {
            spare(tx.all(sql(texts).bind(after).bind(last)).await?, open)?;
            after = last;
        }
    }
    Ok(())
}

/// A list that nothing refers to spares what it names as well: it goes first, and what it names another time.
async fn spare_what_trees_name(tx: &mut Transaction, open: &mut HashSet<Digest>) -> Result<(), StoreError> {
    let bytes_max = i64::try_from(TREE_BYTES_MAX).unwrap_or(i64::MAX);
    let mut after = String::new();
    loop {
        let trees = tx.all(sql(TREES).bind(bytes_max).bind(&after).bind(PAGE)).await?;
        let Some(last) = trees.last() else { return Ok(()) };
        after = last.text("digest")?;
        for tree in &trees {
            let upload = tree.text("upload")?;
            let (mut names, mut chunk) = (Names::default(), 0);
            while let Some(data) = chunk_in(tx, &upload, chunk).await? {
                names.read(&data, |digest| {
                    open.remove(&digest);
                });
                chunk += 1;
            }
        }
    }
}

/// Finds digests in a text that comes in pieces, whatever is around them.
#[derive(Default)]
struct Names {
    /// The end of the piece before: a digest may be in two.
    rest: Vec<u8>,
}

impl Names {
    fn read(&mut self, piece: &[u8], mut found: impl FnMut(Digest)) {
        self.rest.extend_from_slice(piece);
        for text in self.rest.windows(DIGEST_BYTES).filter(|text| text.starts_with(DIGEST_BEGINS)) {
            let digest = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            digest.into_iter().for_each(&mut found);
        }
        let whole = self.rest.len().saturating_sub(DIGEST_BYTES - 1);
        self.rest.drain(..whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_found_wherever_a_text_is_cut() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let text = format!("{{\"files\":[{{\"digest\":\"{one}\"}},\"sha256:no\",\"x{two}{one}\"]}}");
        for cut in 0..=text.len() {
            let (mut names, mut found) = (Names::default(), Vec::new());
            for piece in [&text.as_bytes()[..cut], &text.as_bytes()[cut..]] {
                names.read(piece, |digest| found.push(digest));
            }
            assert_eq!(found, [one.clone(), two.clone(), one.clone()], "cut at {cut}");
        }
    }
}
