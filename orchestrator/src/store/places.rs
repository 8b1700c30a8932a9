//! Folders and buckets that hold the bytes of blobs, as objects under the upload that brought them. An object is written
//! before the row that names it and goes after it; an upload has a row from before its first object until after its last,
//! so that what nobody names is found by it. Every place carries a mark with its id: a folder that is not mounted, or
//! another bucket of the same name, is told from the one where the bytes are. Must never happen here: an object that is
//! changed once it is there, a wait without an end, a key in an error.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, ClientOptions, Error, ObjectStore, ObjectStoreExt as _, PutPayload, RetryConfig,
};
use tokio::sync::OnceCell;

use super::database::sql;
use super::{Store, StoreError};
use crate::config::{BlobPlace, BlobPlaces, Bucket};

/// The object that says which place this is: its text is the id.
const MARK: &str = "refit-blobs";
/// The longest one request may take, and how long tries are repeated that failed.
const REQUEST_WITHIN: Duration = Duration::from_secs(30);
/// The longest a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// The longest one operation may take with all its tries; a folder on a dead network share has no other end.
const WITHIN: Duration = Duration::from_secs(60);
const RETRIES_MAX: usize = 4;
/// How often, and with which pauses, the mark is looked for that another orchestrator is to write.
const MARK_LOOKS: u32 = 50;
const MARK_PAUSE: Duration = Duration::from_millis(100);
/// How many objects are listed, and taken out, in one go; and how many at a time.
const DROPS_MAX: usize = 1000;
const DROPS_AT_A_TIME: usize = 8;
/// The most of a cause that is told, in characters: stores answer with whole documents.
const CAUSE_MAX: usize = 300;

const ID: &str = "SELECT place AS found FROM blob_places WHERE shown = $1 AND marked = 1";
const SHOWN: &str = "SELECT shown AS found FROM blob_places WHERE place = $1 AND marked = 1";
/// At most one id is meant for what is shown so and has none: orchestrators that come to a new place at once write the same.
const MEAN: &str = "INSERT INTO blob_places (place, shown, marked) VALUES ($1, $2, 0) ON CONFLICT DO NOTHING";
const MEANT: &str = "SELECT place FROM blob_places WHERE shown = $1 AND marked = 0";
const KEEP_PLACE: &str = "INSERT INTO blob_places (place, shown, marked) VALUES ($1, $2, 1)
    ON CONFLICT (place) DO UPDATE SET shown = excluded.shown, marked = 1";
const FORGET_MEANT: &str = "DELETE FROM blob_places WHERE shown = $1 AND marked = 0";

/// The places of the settings.
#[derive(Debug, Default)]
pub(crate) struct Places {
    new: Option<Arc<Place>>,
    earlier: Vec<Arc<Place>>,
}

#[derive(Debug)]
struct Place {
    shown: String,
    at: At,
    opened: OnceCell<Opened>,
}

#[derive(Debug)]
enum At {
    Folder(PathBuf),
    Bucket(Arc<dyn ObjectStore>),
}

#[derive(Debug)]
struct Opened {
    id: String,
    objects: Arc<dyn ObjectStore>,
}

impl Places {
    /// The places that these settings name; reaches none of them yet.
    ///
    /// # Errors
    /// A bucket's settings that no client can be made of.
    pub(crate) fn new(settings: &BlobPlaces) -> Result<Self, String> {
        let new = settings.new.as_ref().map(Place::new).transpose()?;
        let earlier = settings.earlier.iter().map(Place::new).collect::<Result<_, _>>()?;
        Ok(Self { new, earlier })
    }

    /// All of them; those first that are open, and need no asking.
    fn all(&self) -> Vec<&Place> {
        let mut all: Vec<&Place> = self.new.iter().chain(&self.earlier).map(Arc::as_ref).collect();
        all.sort_by_cached_key(|place| !place.opened.initialized());
        all
    }
}

/// Whether a place takes an object, gives it back and takes it out; what failed, in words.
pub(crate) async fn try_out(place: &BlobPlace) -> Result<(), String> {
    let place = Place::new(place)?;
    let tried = async {
        let objects = place.objects()?;
        let key = Key::from(format!("refit-doctor/{}", uuid::Uuid::new_v4()));
        let content = Bytes::from_static(b"refit doctor");
        place.within("write to", objects.put(&key, PutPayload::from(content.clone()))).await?;
        let read = place.within("read from", async { objects.get(&key).await?.bytes().await }).await;
        place.within("take something out of", objects.delete(&key)).await?;
        match read? == content {
            true => Ok(()),
            false => Err(StoreError::Blobs(format!("{} gives back what was not written", place.shown))),
        }
    };
    tried.await.map_err(|wrong| wrong.to_string())
}

impl Place {
    fn new(settings: &BlobPlace) -> Result<Arc<Self>, String> {
        let shown = settings.to_string();
        let at = match settings {
            BlobPlace::Folder(path) => At::Folder(path.clone()),
            BlobPlace::Bucket(settings) => {
                At::Bucket(bucket(settings).map_err(|cause| format!("failed to use {shown}: {cause}"))?)
            }
        };
        Ok(Arc::new(Self { shown, at, opened: OnceCell::new() }))
    }

    /// A folder must be there.
    fn objects(&self) -> Result<Arc<dyn ObjectStore>, StoreError> {
        match &self.at {
            At::Folder(path) => match LocalFileSystem::new_with_prefix(path) {
                // What a row names must be there after power loss, too.
                Ok(folder) => Ok(Arc::new(folder.with_fsync(true))),
                Err(cause) => Err(self.failed("open", &cause)),
            },
            At::Bucket(objects) => Ok(Arc::clone(objects)),
        }
    }

    /// The id that is written there; none: nothing is.
    async fn mark(&self, objects: &dyn ObjectStore) -> Result<Option<String>, StoreError> {
        match self.timed(async { objects.get(&Key::from(MARK)).await?.bytes().await }).await {
            Ok(text) => match uuid::Uuid::try_parse_ascii(text.trim_ascii()) {
                Ok(id) => Ok(Some(id.to_string())),
                Err(_) => Err(StoreError::Blobs(format!(
                    "failed to use {}: its object {MARK} is none of Refit's",
                    self.shown
                ))),
            },
            Err(Error::NotFound { .. }) => Ok(None),
            Err(cause) => Err(self.failed("read from", &cause)),
        }
    }

    async fn within<T>(
        &self,
        doing: &str,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, StoreError> {
        self.timed(work).await.map_err(|cause| self.failed(doing, &cause))
    }

    async fn timed<T>(&self, work: impl Future<Output = object_store::Result<T>>) -> object_store::Result<T> {
        let late = |_| {
            let source = format!("no answer within {} s", WITHIN.as_secs()).into();
            Error::Generic { store: "blobs", source }
        };
        tokio::time::timeout(WITHIN, work).await.map_err(late)?
    }

    fn failed(&self, doing: &str, cause: &Error) -> StoreError {
        let hint = match (cause, &self.at) {
            (Error::PermissionDenied { .. } | Error::Unauthenticated { .. }, At::Bucket(_)) => {
                "; check the key, and that it may list, read, write and delete there"
            }
            (Error::NotFound { .. }, At::Bucket(_)) => {
                "; check the names of bucket and prefix, and the endpoint"
            }
            _ => "",
        };
        let cause = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        let cause: String = cause.chars().take(CAUSE_MAX).collect();
        StoreError::Blobs(format!("failed to {doing} {}: {cause}{hint}", self.shown))
    }
}

fn bucket(settings: &Bucket) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = match &settings.key {
        Some(key) => AmazonS3Builder::new()
            .with_access_key_id(key.id.reveal())
            .with_secret_access_key(key.secret.reveal()),
        None => AmazonS3Builder::from_env(),
    };
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &settings.region {
        builder = builder.with_region(region);
    }
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    let client = ClientOptions::new()
        .with_timeout(REQUEST_WITHIN)
        .with_connect_timeout(CONNECT_WITHIN)
        .with_allow_http(plain);
    let retry = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: RETRIES_MAX,
        retry_timeout: REQUEST_WITHIN,
    };
    let objects =
        builder.with_bucket_name(&settings.name).with_client_options(client).with_retry(retry).build()?;
    Ok(match &settings.prefix {
        Some(prefix) => Arc::new(PrefixStore::new(objects, prefix.as_str())),
        None => Arc::new(objects),
    })
}

/// Where the objects of an upload are; no folder has more than a few hundred others in it.
fn folder_of(upload: &str) -> String {
    format!("{}/{upload}", upload.get(..2).unwrap_or_default())
}

impl Store {
    /// The id of the place where new bytes go; none: they go into the database.
    pub(crate) async fn place_of_new_blobs(&self) -> Result<Option<String>, StoreError> {
        match &self.inner.places.new {
            Some(place) => Ok(Some(self.open_place(place).await?.id.clone())),
            None => Ok(None),
        }
    }

    /// Keeps bytes that begin at this byte of an upload, and names the object.
    pub(super) async fn put_object(
        &self,
        place: &str,
        upload: &str,
        begins: u64,
        data: Bytes,
    ) -> Result<String, StoreError> {
        let (place, opened) = self.place(place).await?;
        // Two may send different bytes for one place in the blob: neither changes the other's.
        let object = format!("{}/{begins}-{}", folder_of(upload), uuid::Uuid::new_v4().simple());
        let key = Key::from(object.as_str());
        place.within("write to", opened.objects.put(&key, PutPayload::from(data))).await?;
        Ok(object)
    }

    /// The bytes of an object from this one on.
    pub(super) async fn get_object(
        &self,
        place: &str,
        object: &str,
        range: std::ops::Range<u64>,
    ) -> Result<Bytes, StoreError> {
        let (place, opened) = self.place(place).await?;
        let bytes = range.end - range.start;
        let key = Key::from(object);
        match place.timed(opened.objects.get_range(&key, range)).await {
            Ok(data) if data.len() as u64 == bytes => Ok(data),
            Ok(_) | Err(Error::NotFound { .. }) => Err(StoreError::Corrupt(format!(
                "{object} in {} is gone or was cut short by somebody else than Refit",
                place.shown
            ))),
            Err(cause) => Err(place.failed("read from", &cause)),
        }
    }

    /// Takes out whatever there is of an upload, whether a row names it or not.
    pub(super) async fn drop_objects(&self, place: &str, upload: &str) -> Result<(), StoreError> {
        let (place, opened) = self.place(place).await?;
        let folder = folder_of(upload);
        if let At::Folder(root) = &place.at {
            // With what writes left there that a crash cut short.
            let work = async {
                match tokio::fs::remove_dir_all(root.join(&folder)).await {
                    Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                        Err(Error::Generic { store: "blobs", source: cause.into() })
                    }
                    Ok(()) | Err(_) => Ok(()),
                }
            };
            return place.within("take something out of", work).await;
        }
        let (folder, objects) = (Key::from(folder), &opened.objects);
        loop {
            let listed = objects.list(Some(&folder)).take(DROPS_MAX).map_ok(|meta| meta.location);
            let listed: Vec<Key> = place.within("list", listed.try_collect()).await?;
            let last = listed.len() < DROPS_MAX;
            let drops = stream::iter(listed).map(|key| async move {
                match place.timed(objects.delete(&key)).await {
                    Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                    Err(cause) => Err(place.failed("take something out of", &cause)),
                }
            });
            drops.buffer_unordered(DROPS_AT_A_TIME).try_collect::<()>().await?;
            if last {
                return Ok(());
            }
        }
    }

    /// Whether the settings name the place with this id.
    pub(super) async fn has_place(&self, id: &str) -> Result<bool, StoreError> {
        Ok(self.find_place(id).await?.is_some())
    }

    async fn place(&self, id: &str) -> Result<(&Place, &Opened), StoreError> {
        if let Some(found) = self.find_place(id).await? {
            return Ok(found);
        }
        let shown = self.known_place(SHOWN, id).await?.unwrap_or_else(|| id.to_owned());
        Err(StoreError::Blobs(format!(
            "these bytes are in {shown}, which `blobs` in refit.yaml does not name: add it to `earlier`"
        )))
    }

    async fn find_place(&self, id: &str) -> Result<Option<(&Place, &Opened)>, StoreError> {
        let mut wrong = None;
        for place in self.inner.places.all() {
            match self.open_place(place).await {
                Ok(opened) if opened.id == id => return Ok(Some((place, opened))),
                Ok(_) => {}
                Err(error) => wrong = Some(error),
            }
        }
        wrong.map_or(Ok(None), Err)
    }

    /// What the database says of a place: its id, or how the settings named it.
    async fn known_place(&self, what: &'static str, by: &str) -> Result<Option<String>, StoreError> {
        let by = by.to_owned();
        self.durably(move |store| {
            let find = sql(what).bind(&by);
            async move { store.database().first(find).await?.map(|row| row.text("found")).transpose() }
        })
        .await
    }

    async fn open_place<'a>(&self, place: &'a Place) -> Result<&'a Opened, StoreError> {
        let open = || async {
            let known = self.known_place(ID, &place.shown).await?;
            if let (At::Folder(path), None) = (&place.at, &known) {
                let made = tokio::fs::create_dir_all(path).await;
                made.map_err(|cause| {
                    place.failed("make", &Error::Generic { store: "blobs", source: cause.into() })
                })?;
            }
            let objects = place.objects()?;
            let id = match (place.mark(&*objects).await?, known) {
                (Some(id), _) => id,
                (None, Some(id)) => {
                    return Err(StoreError::Blobs(format!(
                        "failed to use {}: blobs were kept there, and its mark {MARK} is gone; is it mounted, is it the right \
                         one? If it was emptied for good, write {id} into {MARK} there",
                        place.shown
                    )));
                }
                (None, None) => self.mark_new(place, &*objects).await?,
            };
            let (named, shown) = (id.clone(), place.shown.clone());
            self.durably(move |store| {
                let keep = sql(KEEP_PLACE).bind(&named).bind(&shown);
                let forget = sql(FORGET_MEANT).bind(&shown);
                async move {
                    let mut tx = store.database().begin().await?;
                    tx.execute(keep).await?;
                    tx.execute(forget).await?;
                    tx.commit().await
                }
            })
            .await?;
            Ok(Opened { id, objects })
        };
        place.opened.get_or_try_init(open).await
    }

    /// Gives a place an id that has none. The database says which, so that it does not matter whether a store can refuse to
    /// write over what is there, and how far another orchestrator has come that does the same.
    async fn mark_new(&self, place: &Place, objects: &dyn ObjectStore) -> Result<String, StoreError> {
        let (new, shown) = (uuid::Uuid::new_v4().to_string(), place.shown.clone());
        let ours = new.clone();
        let id = self
            .durably(move |store| {
                let shown = shown.clone();
                let (mean, meant) = (sql(MEAN).bind(&new).bind(&shown), sql(MEANT).bind(&shown));
                async move {
                    let mut tx = store.database().begin().await?;
                    tx.execute(mean).await?;
                    let meant = tx.first(meant).await?;
                    tx.commit().await?;
                    match meant {
                        Some(row) => row.text("place"),
                        // Written by somebody else just now, and not meant any more.
                        None => Err(StoreError::Conflict(format!("{shown} got its mark"))),
                    }
                }
            })
            .await?;
        // Somebody who was through with it meanwhile has left nothing that was meant. Another's mark must turn up here: two folders of
        // one path on two hosts are two places.
        let looks = if id == ours { 1 } else { MARK_LOOKS };
        for look in 0..looks {
            if let Some(id) = place.mark(objects).await? {
                return Ok(id);
            }
            if look + 1 < looks {
                tokio::time::sleep(MARK_PAUSE).await;
            }
        }
        if id != ours {
            let shown = place.shown.clone();
            // Whoever meant it may have been killed before it was written.
            self.durably(move |store| {
                let forget = sql(FORGET_MEANT).bind(&shown);
                async move {
                    let mut tx = store.database().begin().await?;
                    tx.execute(forget).await?;
                    tx.commit().await
                }
            })
            .await?;
            return Err(StoreError::Blobs(format!(
                "failed to use {}: another orchestrator sets it up, and its mark {MARK} does not turn up here; is it the same \
                 place for both? It is tried again",
                place.shown
            )));
        }
        place.within("write to", objects.put(&Key::from(MARK), PutPayload::from(id.clone()))).await?;
        Ok(id)
    }
}
