//! The services' binaries, built from the source that the user stands in.
//!
//! On a terminal cargo shows its own bar. Elsewhere its bar is read, and said as a line every few seconds: the first
//! build takes minutes, and a log without a sign of life looks as if it hung.

use std::fmt;
use std::io::{BufRead, BufReader, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::{ChildStderr, Stdio};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use xtask::progress::step;

use super::fleet::PACKAGES;
use super::stop::{Stop, wait_until};
use crate::suite::{cargo, target_dir};

/// How often the progress is said where no bar can be drawn.
const TELL: Duration = Duration::from_secs(5);

/// What cargo says within one look is far less; if it ever is more, cargo waits.
const UNTOLD: usize = 1_000;

/// How the services are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build, and fast enough to run.
    Up,
    /// What images and benchmarks use.
    Release,
    Dev,
}

impl Profile {
    /// The name that cargo knows it by.
    const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Release => "release",
            Self::Dev => "dev",
        }
    }

    /// Its folder below `target`.
    const fn folder(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Release => "release",
            Self::Dev => "debug",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self {
            Self::Up => "optimised a little; --release builds the fastest",
            Self::Release => "fully optimised",
            Self::Dev => "not optimised, with debug assertions",
        };
        write!(formatter, "profile {} ({how})", self.name())
    }
}

/// Builds the services. Returns the folder of their binaries.
pub(crate) fn services(profile: Profile, stop: &Stop) -> Result<PathBuf> {
    step(format!("building the services, {profile}; the first time takes some minutes"));
    let began = Instant::now();
    let mut build = cargo();
    build.args(["build", "--locked", "--profile", profile.name(), "--bins"]);
    build.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
    let bar = std::io::stderr().is_terminal();
    if !bar {
        build.env("CARGO_TERM_PROGRESS_WHEN", "always").env("CARGO_TERM_PROGRESS_WIDTH", "120");
        build.stderr(Stdio::piped());
    }
    let mut child = build.spawn().context("running cargo")?;
    let mut progress = Progress::of(child.stderr.take());
    let built = wait_until(child, stop, || progress.tell());
    if !stop.is_set() {
        progress.finish();
    }
    built.context("building the services")?;
    let folder = target_dir()?.join(profile.folder());
    step(format!(
        "built {} with {profile} in {} s, into {}",
        PACKAGES.join(", "),
        began.elapsed().as_secs(),
        folder.display()
    ));
    Ok(folder)
}

/// What cargo says while nobody sees its bar.
struct Progress {
    /// None if cargo speaks to the terminal itself.
    said: Option<Receiver<Said>>,
    latest: Option<String>,
    told: Instant,
}

impl Progress {
    fn of(stderr: Option<ChildStderr>) -> Self {
        let said = stderr.map(|stderr| {
            let (sender, said) = mpsc::sync_channel(UNTOLD);
            thread::spawn(move || listen(BufReader::new(stderr), &sender));
            said
        });
        Self { said, latest: None, told: Instant::now() }
    }

    /// Passes on what cargo said, and its progress from time to time.
    fn tell(&mut self) {
        for said in self.said.iter().flat_map(Receiver::try_iter) {
            match said {
                Said::Progress(text) => self.latest = Some(text),
                Said::Line(line) => pass_on(&line),
            }
        }
        if self.told.elapsed() >= TELL {
            self.told = Instant::now();
            if let Some(text) = &self.latest {
                step(text);
            }
        }
    }

    /// Passes on the rest, which may hold the errors.
    fn finish(self) {
        for said in self.said.into_iter().flatten() {
            if let Said::Line(line) = said {
                pass_on(&line);
            }
        }
    }
}

/// A terminal that was closed is no reason to panic, as `eprintln!` would.
fn pass_on(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}

#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// A new state of the bar: "[ 57/312] tokio, hyper".
    Progress(String),
    /// Anything else that matters: warnings, errors, downloads.
    Line(String),
}

/// Reads what cargo says to its end. The bar is drawn over and over, between carriage returns.
fn listen(stderr: impl BufRead, sender: &SyncSender<Said>) {
    let mut text = Vec::new();
    for byte in stderr.bytes() {
        match byte {
            Ok(b'\n' | b'\r') => {
                let said = understand(&String::from_utf8_lossy(&text));
                text.clear();
                if said.is_some_and(|said| sender.send(said).is_err()) {
                    return;
                }
            }
            Ok(byte) => text.push(byte),
            Err(_) => return,
        }
    }
}

/// None for what needs no line: that a crate is being compiled is in the bar as well.
fn understand(text: &str) -> Option<Said> {
    // Cargo clears the bar with an escape sequence before it prints a line.
    let text = text.trim_end().trim_start_matches("\u{1b}[K");
    let said = text.trim_start();
    if let Some(bar) = said.strip_prefix("Building [") {
        let (_, counted) = bar.split_once("] ")?;
        let (count, crates) = counted.split_once(':').unwrap_or((counted, ""));
        let (done, all) = count.trim().split_once('/')?;
        let width = all.len();
        return Some(Said::Progress(format!("[{done:>width$}/{all}] {}", crates.trim())));
    }
    let is_noise = said.is_empty() || said.starts_with("Compiling ") || said.starts_with("Fresh ");
    (!is_noise).then(|| Said::Line(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_of_cargo_is_said_in_a_line() {
        let output = "   Compiling tokio v1.54.1\n    Building [=====>     ] 57/312: tokio, hyper-util(build)\r\
                      warning: unused\n    Building [           ] 1/5: \r";
        let (sender, said) = mpsc::sync_channel(UNTOLD);
        listen(output.as_bytes(), &sender);
        drop(sender);
        let said: Vec<Said> = said.iter().collect();
        assert_eq!(
            said,
            [
                Said::Progress("[ 57/312] tokio, hyper-util(build)".to_owned()),
                Said::Line("warning: unused".to_owned()),
                Said::Progress("[1/5] ".to_owned()),
            ]
        );
    }
}
