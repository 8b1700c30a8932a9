//! Fetches the secrets of steps from where the settings say they are, for the order of one attempt. Keeps nothing: a secret
//! that is replaced is the new one for the next attempt. Must never happen here: a secret in an error, a log or the store.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use refit_workflows::wire::{SecretValue, StepOrder};

use crate::config::{AgeFile, SecretSources};

/// The shortest secret, in bytes: shorter text cannot be found in a log without finding it everywhere.
const BYTES_MIN: usize = 4;
/// What all secrets of a step may have together, in bytes: a process cannot be given much more.
const STEP_BYTES_MAX: usize = 256 * 1024;
/// The most that a file encrypted with age, its identities, or what is in it may have, in bytes.
const AGE_BYTES_MAX: u64 = 1024 * 1024;

/// The orchestrator's secrets; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Vault(Arc<SecretSources>);

/// What one place says of a secret.
type Found = Result<Option<String>, String>;

impl Vault {
    /// Over these places; looks at none of them yet.
    pub fn new(sources: SecretSources) -> Self {
        Self(Arc::new(sources))
    }

    /// Puts the secrets of these names into an order that is about to be handed to its worker.
    ///
    /// # Errors
    /// The first that is not to be had, and why: the attempt cannot start.
    pub async fn fill(&self, mut order: StepOrder, names: Vec<String>) -> Result<StepOrder, String> {
        let mut bytes = 0;
        for (name, found) in self.fetch(names).await? {
            let secret = found?;
            bytes += secret.reveal().len();
            order.secrets.insert(name, secret);
        }
        if bytes > STEP_BYTES_MAX {
            let most = STEP_BYTES_MAX / 1024;
            return Err(format!("the step's secrets have {bytes} bytes together, more than {most} KiB"));
        }
        Ok(order)
    }

    /// Sentences about those of these secrets that are not to be had now, each with the step that names it.
    pub async fn missing(&self, wanted: Vec<(String, String)>) -> Vec<String> {
        let names = wanted.iter().map(|(_, name)| name.clone()).collect();
        match self.fetch(names).await {
            Ok(found) => wanted
                .into_iter()
                .zip(found)
                .filter_map(|((step, _), (_, found))| Some(format!("step `{step}`: {}", found.err()?)))
                .collect(),
            Err(wrong) => vec![wrong],
        }
    }

    /// Each name with its secret, in order. Reads files, away from the threads that serve others.
    async fn fetch(&self, names: Vec<String>) -> Result<Vec<(String, Result<SecretValue, String>)>, String> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let sources = Arc::clone(&self.0);
        let fetch = move || {
            let mut places = Places { sources: &sources, opened: None };
            names
                .into_iter()
                .map(|name| {
                    let found = places.find(&name).map_err(|why| format!("secret `{name}`: {why}"));
                    (name, found)
                })
                .collect()
        };
        tokio::task::spawn_blocking(fetch)
            .await
            .map_err(|gone| format!("failed to fetch the secrets: {gone}"))
    }
}

/// The places of one look; a file encrypted with age is opened once in it.
struct Places<'a> {
    sources: &'a SecretSources,
    opened: Option<Result<BTreeMap<String, String>, String>>,
}

impl Places<'_> {
    fn find(&mut self, name: &str) -> Result<SecretValue, String> {
        let found = match self.in_folder(name)? {
            Some(found) => Some(found),
            None => match self.in_age(name)? {
                Some(found) => Some(found),
                None => self.in_env(name)?,
            },
        };
        let Some(found) = found else { return Err(self.nowhere(name)) };
        if found.len() < BYTES_MIN {
            return Err(format!("it has fewer than {BYTES_MIN} bytes, too few to be kept out of logs"));
        }
        if found.len() > SecretValue::BYTES_MAX {
            return Err(format!("it is larger than {} KiB", SecretValue::BYTES_MAX / 1024));
        }
        if found.contains('\0') {
            return Err("it holds a NUL character, which no variable can".to_owned());
        }
        Ok(SecretValue::new(found))
    }

    fn in_folder(&self, name: &str) -> Found {
        let Some(folder) = &self.sources.folder else { return Ok(None) };
        let path = folder.join(name);
        let failed = |why: String| format!("failed to read {}: {why}", path.display());
        // One byte more than allowed, and a line break: enough to see that it is too large.
        let most = SecretValue::BYTES_MAX as u64 + 3;
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(failed(cause.to_string())),
        };
        let mut text = String::new();
        let read = file.take(most).read_to_string(&mut text);
        read.map_err(|cause| match cause.kind() {
            std::io::ErrorKind::InvalidData => failed("it is not UTF-8 text; store it as base64".to_owned()),
            _ => failed(cause.to_string()),
        })?;
        Ok(Some(without_line_end(&text).to_owned()))
    }

    fn in_age(&mut self, name: &str) -> Found {
        let Some(age) = &self.sources.age else { return Ok(None) };
        let opened = self.opened.get_or_insert_with(|| open(age));
        opened.as_ref().map(|secrets| secrets.get(name).cloned()).map_err(Clone::clone)
    }

    fn in_env(&self, name: &str) -> Found {
        let Some(prefix) = &self.sources.env else { return Ok(None) };
        let variable = format!("{prefix}{name}");
        match std::env::var(&variable) {
            Ok(text) => Ok(Some(text)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(format!("the variable {variable} is not UTF-8 text; store it as base64"))
            }
        }
    }

    fn nowhere(&self, name: &str) -> String {
        let SecretSources { folder, age, env } = self.sources;
        let folder = folder.as_ref().map(|folder| format!("no file {}", folder.join(name).display()));
        let age = age.as_ref().map(|age| format!("no entry in {}", age.file.display()));
        let env = env.as_ref().map(|prefix| format!("no variable {prefix}{name}"));
        let looked: Vec<String> = [folder, age, env].into_iter().flatten().collect();
        if looked.is_empty() {
            return "this orchestrator has no secrets; say where they are with `secrets` in refit.yaml"
                .to_owned();
        }
        format!("the orchestrator has {}", looked.join(", and "))
    }
}

/// One line break at the end is the editor's, not the secret's.
fn without_line_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

/// What a file encrypted with age holds: `NAME=value` lines, or one JSON object of texts.
fn open(age: &AgeFile) -> Result<BTreeMap<String, String>, String> {
    let shown = age.file.display();
    let identities = read(&age.identity)?;
    let identities = age::IdentityFile::from_buffer(identities.as_slice())
        .map_err(|cause| format!("failed to read the identities in {}: {cause}", age.identity.display()))?
        .into_identities()
        .map_err(|cause| format!("failed to use the identities in {}: {cause}", age.identity.display()))?;
    let sealed = read(&age.file)?;
    let failed = |cause: String| format!("failed to open {shown} with {}: {cause}", age.identity.display());
    let decryptor = age::Decryptor::new_buffered(age::armor::ArmoredReader::new(sealed.as_slice()))
        .map_err(|cause| failed(cause.to_string()))?;
    let reader = decryptor
        .decrypt(identities.iter().map(|identity| identity.as_ref() as &dyn age::Identity))
        .map_err(|cause| failed(cause.to_string()))?;
    let mut text = String::new();
    reader.take(AGE_BYTES_MAX).read_to_string(&mut text).map_err(|cause| failed(cause.to_string()))?;
    parse(&text).map_err(|why| format!("what is in {shown} cannot be read: {why}"))
}

/// The reasons name lines, never what stands in them.
fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text)
            .map_err(|wrong| format!("line {}: it is no JSON object of texts", wrong.line()));
    }
    let mut secrets = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(format!("line {}: expected NAME=value, or one JSON object of texts", index + 1));
        };
        secrets.insert(name.trim().to_owned(), value.to_owned());
    }
    Ok(secrets)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |why: String| format!("failed to read {}: {why}", path.display());
    let file = File::open(path).map_err(|cause| failed(cause.to_string()))?;
    let mut bytes = Vec::new();
    file.take(AGE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|cause| failed(cause.to_string()))?;
    if bytes.len() as u64 > AGE_BYTES_MAX {
        return Err(failed("it is larger than 1 MiB".to_owned()));
    }
    Ok(bytes)
}

/// What each place holds, for `refit doctor`: the place, and how many secrets or why it cannot be used.
pub(crate) fn survey(sources: &SecretSources) -> Vec<(String, Result<usize, String>)> {
    let mut places = Vec::new();
    if let Some(folder) = &sources.folder {
        let count = std::fs::read_dir(folder)
            .map(|entries| entries.flatten().filter(|entry| entry.path().is_file()).count())
            .map_err(|cause| cause.to_string());
        places.push((format!("the folder {}", folder.display()), count));
    }
    if let Some(age) = &sources.age {
        places.push((age.file.display().to_string(), open(age).map(|secrets| secrets.len())));
    }
    if let Some(prefix) = &sources.env {
        let is_one = |name: &std::ffi::OsString| name.to_str().is_some_and(|name| name.starts_with(prefix));
        let count = std::env::vars_os().filter(|(name, _)| is_one(name)).count();
        places.push((format!("variables {prefix}*"), Ok(count)));
    }
    places
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use age::secrecy::ExposeSecret as _;

    use super::*;

    async fn get(vault: &Vault, name: &str) -> Result<String, String> {
        let mut fetched = vault.fetch(vec![name.to_owned()]).await?;
        fetched.remove(0).1.map(|secret| secret.reveal().to_owned())
    }

    #[tokio::test]
    async fn a_file_of_the_folder_is_a_secret_and_is_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let sources = SecretSources { folder: Some(folder.path().to_owned()), ..SecretSources::default() };
        let vault = Vault::new(sources);
        let put = |name: &str, text: &[u8]| std::fs::write(folder.path().join(name), text).unwrap();
        put("TOKEN", b"first\r\n");
        assert_eq!(get(&vault, "TOKEN").await.unwrap(), "first");
        put("TOKEN", b"two\nlines\n\n");
        assert_eq!(get(&vault, "TOKEN").await.unwrap(), "two\nlines\n", "one line break is the editor's");
        for (text, why) in [
            (b"abc".to_vec(), "fewer than 4 bytes"),
            (b"\xff\xfe\xff\xfe".to_vec(), "not UTF-8"),
            (b"a\0bcd".to_vec(), "NUL"),
            (vec![b'x'; 64 * 1024 + 1], "larger than 64 KiB"),
        ] {
            put("BAD", &text);
            let wrong = get(&vault, "BAD").await.unwrap_err();
            assert!(wrong.starts_with("secret `BAD`: ") && wrong.contains(why), "{wrong}");
        }
        put("BIG", &vec![b'x'; 64 * 1024]);
        assert_eq!(get(&vault, "BIG").await.unwrap().len(), 64 * 1024);
        let wrong = get(&vault, "ABSENT").await.unwrap_err();
        assert!(wrong.contains("the orchestrator has no file ") && wrong.contains("/ABSENT"), "{wrong}");
        let wrong = get(&Vault::default(), "ABSENT").await.unwrap_err();
        assert!(wrong.contains("`secrets` in refit.yaml"), "{wrong}");
    }

    #[tokio::test]
    async fn a_file_encrypted_with_age_is_opened_by_its_identity_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (mine, other) = (age::x25519::Identity::generate(), age::x25519::Identity::generate());
        for (name, identity) in [("mine", &mine), ("other", &other)] {
            let text = format!("# a key\n{}\n", identity.to_string().expose_secret());
            std::fs::write(path(name), text).unwrap();
        }
        let text = b"# of the team\nTOKEN=abc=def\n";
        std::fs::write(path("binary"), age::encrypt(&mine.to_public(), text).unwrap()).unwrap();
        let mut armoured =
            age::armor::ArmoredWriter::wrap_output(Vec::new(), age::armor::Format::AsciiArmor).unwrap();
        let json = b"{\"TOKEN\": \"two\\nlines\"}";
        armoured.write_all(&age::encrypt(&mine.to_public(), json).unwrap()).unwrap();
        std::fs::write(path("armoured"), armoured.finish().unwrap()).unwrap();

        let vault = |file: &str, identity: &str| {
            let age = Some(AgeFile { file: path(file), identity: path(identity) });
            Vault::new(SecretSources { age, ..SecretSources::default() })
        };
        assert_eq!(get(&vault("binary", "mine"), "TOKEN").await.unwrap(), "abc=def");
        assert_eq!(get(&vault("armoured", "mine"), "TOKEN").await.unwrap(), "two\nlines");
        let wrong = get(&vault("binary", "other"), "TOKEN").await.unwrap_err();
        assert!(wrong.contains("failed to open") && !wrong.contains("abc"), "{wrong}");
        let wrong = get(&vault("absent", "mine"), "TOKEN").await.unwrap_err();
        assert!(wrong.contains("failed to read") && wrong.contains("absent"), "{wrong}");
    }

    #[test]
    fn what_cannot_be_read_is_told_without_itself() {
        for text in ["hunter2\n", "{\"A\": 12345}", "{\"A\": \"hunter2\""] {
            let wrong = parse(text).unwrap_err();
            assert!(
                wrong.starts_with("line 1") && !wrong.contains("hunter2") && !wrong.contains("12345"),
                "{wrong}"
            );
        }
    }

    #[tokio::test]
    async fn what_is_missing_is_told_with_its_step() {
        let wanted = vec![("train".to_owned(), "A_KEY".to_owned())];
        let told = Vault::default().missing(wanted).await;
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("step `train`: secret `A_KEY`: "), "{told:?}");
    }
}
