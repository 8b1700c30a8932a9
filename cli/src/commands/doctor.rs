//! `refit doctor`: whether what an orchestrator and a worker need is there. Looks, and changes nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use refit_orchestrator::Config;
use refit_orchestrator::doctor::{self, Finding, Verdict};

use super::local::reachable;
use crate::args::{DoctorArgs, Remote, SERVER_DEFAULT};
use crate::client::{Client, ClientError};
use crate::exit::Exit;
use crate::render::{self, bytes, time::now};
use crate::settings::Settings;

/// Free space below which nobody should rely on a disk, and below which it will not do, in bytes.
const DISK_WARN: u64 = 2 << 30;
const DISK_FAIL: u64 = 200 << 20;
/// The longest a program may take to tell its version.
const PROGRAM_WAIT: Duration = Duration::from_secs(10);

/// Looks at everything and tells it.
pub(crate) async fn run(args: DoctorArgs, remote: &Remote) -> anyhow::Result<Exit> {
    let settings = Settings::load(&args.config)?;
    let config = settings.orchestrator(&args.place, &args.broker, None, &[])?;
    let mut findings = vec![Finding::ok("program", format!("refit {}", env!("CARGO_PKG_VERSION")))];
    findings.extend(doctor::database(&config, now).await);
    findings.push(doctor::tokens(&config).await);
    findings.extend(disk(&config));
    findings.extend(doctor::secrets(&config).await);
    findings.extend(doctor::blobs(&config).await);
    for source in &config.sources {
        findings.extend(doctor::source(source, config.listen.ip().is_loopback()).await);
    }
    for target in &config.targets {
        findings.extend(doctor::target(target).await);
    }
    findings.extend(doctor::mirror(&config).await);
    findings.extend(server(remote, config.listen).await?);
    findings.extend(worker().await);
    render::answer(args.output.format, &findings, || render::doctor::list(&findings))?;
    let failed = findings.iter().any(|finding| finding.state == Verdict::Fail);
    Ok(if failed { Exit::Failed } else { Exit::Ok })
}

/// Free space where the orchestrator, or a worker on this host, keeps its files.
#[cfg_attr(
    target_os = "linux",
    expect(clippy::useless_conversion, reason = "other systems count in 32 bits")
)]
fn disk(config: &Config) -> Option<Finding> {
    let file = doctor::sqlite_file(config);
    let folder = file.as_deref().and_then(Path::parent).unwrap_or(&config.data);
    // The folder itself may be made later: what counts is the disk it will lie on.
    let absolute = std::path::absolute(folder).ok()?;
    let there = absolute.ancestors().find(|path| path.exists())?;
    let check = "disk";
    let stat = match nix::sys::statvfs::statvfs(there) {
        Ok(stat) => stat,
        Err(wrong) => {
            let todo = "choose another folder with --data";
            return Some(Finding::fail(
                check,
                format!("failed to look at {}: {wrong}", there.display()),
                todo,
            ));
        }
    };
    let free = u64::from(stat.blocks_available()).saturating_mul(u64::from(stat.fragment_size()));
    let found = format!("{} free for {}", bytes(free), folder.display());
    let todo = "free some space, choose another folder with --data, or keep less: `retention` in refit.yaml";
    Some(match free {
        ..DISK_FAIL => Finding::fail(check, found, todo),
        DISK_FAIL..DISK_WARN => Finding::warn(check, found, todo),
        DISK_WARN.. => Finding::ok(check, found),
    })
}

/// What the server says of itself. Where nobody names one, it is looked for where these settings let it listen, and need
/// not be there.
async fn server(remote: &Remote, listen: SocketAddr) -> anyhow::Result<Vec<Finding>> {
    let check = "server";
    let named = remote.server != SERVER_DEFAULT;
    let server = if named { remote.server.clone() } else { here(listen) };
    let about = match Client::at(&server, remote.token.clone())?.about().await {
        Ok(about) => about,
        Err(wrong @ ClientError::Unreachable { .. }) if !named => {
            let todo = "start one with `refit serve`, or name another with --server";
            return Ok(vec![Finding::warn(check, wrong.to_string(), todo)]);
        }
        Err(wrong) => {
            let todo = "check --server and REFIT_TOKEN; the server's log says more";
            return Ok(vec![Finding::fail(check, wrong.to_string(), todo)]);
        }
    };
    let found = format!("{server} answers, on {}", about.database);
    let mut findings = vec![Finding::ok(check, found)];
    let version = format!("refit {}", about.version);
    let check = "server version";
    findings.push(match about.version == env!("CARGO_PKG_VERSION") {
        true => Finding::ok(check, version),
        false => Finding::warn(check, version, "use the same version here: answers may have changed"),
    });
    findings.push(Finding::clock("server clock", about.now, now()));
    for part in about.parts {
        let check = format!("server {} {}", part.part, part.name);
        findings.push(match part.state.as_str() {
            "degraded" => {
                let found = part.reason.unwrap_or(part.state);
                Finding::fail(check, found, "mend what the reason names; the server tries again by itself")
            }
            _ => Finding::ok(check, part.state),
        });
    }
    Ok(findings)
}

/// Where an orchestrator with these settings answers on this host; with port 0, nobody knows, and it is where one is that
/// was told nothing.
fn here(listen: SocketAddr) -> String {
    match listen.port() {
        0 => SERVER_DEFAULT.to_owned(),
        _ => format!("http://{}", reachable(listen)),
    }
}

/// What steps on this host may need. Only a worker needs it, so that nothing here is a failure.
async fn worker() -> Vec<Finding> {
    let check = "worker python";
    let todo = "steps with `python:` need Python 3.9 or newer with venv, on each worker's host";
    let python =
        match version_of("python3", &["-c", "import platform, venv; print(platform.python_version())"]).await
        {
            Some(version) if is_python_new_enough(&version) => {
                Finding::ok(check, format!("Python {version} with venv"))
            }
            Some(version) => Finding::warn(check, format!("Python {version}"), todo),
            None => Finding::warn(check, "no python3 with venv on this host's path", todo),
        };
    let uv = match version_of("uv", &["--version"]).await {
        Some(version) => Finding::ok("worker uv", format!("{version}: environments are built with it")),
        None => Finding::ok(
            "worker uv",
            "not there: environments are built with venv and pip, which takes longer",
        ),
    };
    let check = "worker GPUs";
    let cards = std::fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, |entries| entries.flatten().count());
    let asked = ["--query-gpu=name", "--format=csv,noheader"];
    let gpus = match (cards, version_of("nvidia-smi", &asked).await) {
        (0, _) => Finding::ok(check, "none: steps that need some wait for a worker on another host"),
        (cards, Some(_)) => Finding::ok(check, format!("{cards} of NVIDIA")),
        (cards, None) => Finding::warn(
            check,
            format!("{cards} of NVIDIA, and nvidia-smi does not answer"),
            "check the driver: steps will be given these GPUs and may fail on them",
        ),
    };
    vec![python, uv, gpus]
}

fn is_python_new_enough(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0u32));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (3, 9)
}

/// The first line of what a program says; none when it is not there, fails or takes too long.
async fn version_of(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PROGRAM_WAIT, command.output()).await.ok()?.ok()?;
    let text = output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())?;
    text.lines().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_looked_for_where_the_settings_let_it_listen() {
        for (listen, server) in [
            ("127.0.0.1:7433", SERVER_DEFAULT),
            ("127.0.0.1:0", SERVER_DEFAULT),
            ("0.0.0.0:80", "http://127.0.0.1:80"),
            ("[::]:81", "http://[::1]:81"),
            ("10.0.0.1:82", "http://10.0.0.1:82"),
        ] {
            assert_eq!(here(listen.parse().unwrap()), server);
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(
            is_python_new_enough("3.9.1") && is_python_new_enough("3.13.0") && is_python_new_enough("4.0")
        );
        assert!(!is_python_new_enough("3.8.18") && !is_python_new_enough("2.7") && !is_python_new_enough(""));
    }
}
