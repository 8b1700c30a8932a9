//! An S3-compatible store of a test's own: a server over a folder that checks who signs. Must never happen here: a bucket
//! that another test sees, or that outlives its value.

use std::net::SocketAddr;
use std::path::PathBuf;

use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A store with one bucket.
#[derive(Debug)]
pub struct S3 {
    folder: tempfile::TempDir,
    address: SocketAddr,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl S3 {
    /// Its bucket.
    pub const BUCKET: &str = "refit-test";
    /// The key it knows.
    pub const KEY_ID: &str = "refit-test-key";
    /// What that key signs with.
    pub const SECRET: &str = "refit-test-secret";

    /// Starts it on a free port of loopback.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn start() -> Self {
        // Whoever speaks to it in this process needs one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::Builder::new().prefix("refit-test-").tempdir();
        let folder = folder.unwrap_or_else(|error| panic!("failed to make a temporary folder: {error}"));
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut store = Self { folder, address, serving: None };
        if let Err(error) = std::fs::create_dir(store.bucket()) {
            panic!("failed to make a bucket: {error}");
        }
        store.resume().await;
        store
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The folder of the bucket: objects are files under their names.
    pub fn bucket(&self) -> PathBuf {
        self.folder.path().join(Self::BUCKET)
    }

    /// Nobody answers from now on.
    pub async fn pause(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
    }

    /// It answers again, at the same address.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn resume(&mut self) {
        let listener = match TcpListener::bind(self.address).await {
            Ok(listener) => listener,
            Err(error) => panic!("failed to listen on {}: {error}", self.address),
        };
        match (listener.local_addr(), s3s_fs::FileSystem::new(self.folder.path())) {
            (Ok(address), Ok(files)) => {
                let mut service = S3ServiceBuilder::new(files);
                service.set_auth(SimpleAuth::from_single(Self::KEY_ID, Self::SECRET));
                self.address = address;
                self.serving = Some(tokio::spawn(serve(listener, service.build())));
            }
            (address, files) => panic!("failed to start a store: {address:?}, {files:?}"),
        }
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

async fn serve(listener: TcpListener, service: S3Service) {
    // They end with this task.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let connection = hyper::server::conn::http1::Builder::new();
        connections.spawn(connection.serve_connection(TokioIo::new(stream), service.clone()));
        while connections.try_join_next().is_some() {}
    }
}
