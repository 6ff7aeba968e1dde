//! Whose files a server's are. Root can't run Postgres, so under root its folder belongs to another user, who must be
//! able to reach it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{User, command as marked};

/// The user of Debian's package, else the one that owns nothing. A system user is not made: it would outlive us.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// The user that a server runs as; None: ourselves.
pub(super) fn server_user() -> Result<Option<User>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
    let user = USERS.iter().find_map(|name| lookup(&passwd, name));
    Ok(Some(user.context("Postgres can't run as root, and there is neither a user postgres nor nobody")?))
}

fn lookup(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(User { uid, gid })
    })
}

/// The user that data belongs to already: a package installed meanwhile must not make it unreadable.
pub(super) fn user_of(data: &Path) -> Result<Option<User>> {
    if server_user()?.is_none() {
        return Ok(None);
    }
    let data = fs::metadata(data).with_context(|| format!("looking at {}", data.display()))?;
    Ok(Some(User { uid: data.uid(), gid: data.gid() }))
}

/// A command that runs as that user and ends.
pub(super) fn command(program: &Path) -> Result<Command> {
    let Some(User { uid, gid }) = server_user()? else { return Ok(marked(program)) };
    let mut command = marked("setpriv");
    command.args([
        format!("--reuid={uid}"),
        format!("--regid={gid}"),
        "--clear-groups".to_owned(),
        "--".to_owned(),
    ]);
    command.arg(program);
    Ok(command)
}

/// Makes the folder that user's. What is inside is its own already.
pub(super) fn give(dir: &Path) -> Result<()> {
    let Some(user) = server_user()? else { return Ok(()) };
    chown(dir, Some(user.uid), Some(user.gid)).with_context(|| format!("giving {} away", dir.display()))
}

/// The folder itself, or one elsewhere if the servers' user can't reach it (a checkout in root's home).
pub(super) fn reachable(dir: &Path) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let dir = dir.canonicalize()?;
    if server_user()?.is_none() || dir.ancestors().skip(1).all(is_open) {
        return Ok(dir);
    }
    let name: String =
        dir.to_string_lossy().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let elsewhere = Path::new("/var/tmp").join(format!("mini-telegram{name}"));
    fs::create_dir_all(&elsewhere)?;
    Ok(elsewhere)
}

/// Everybody may pass through.
fn is_open(dir: &Path) -> bool {
    fs::metadata(dir).is_ok_and(|dir| dir.permissions().mode() & 0o001 != 0 || dir.uid() != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\npostgresql:x:7:8::/:/bin/sh\npostgres:x:101:104:,,,:/:/bin/sh\n";
        assert_eq!(lookup(passwd, "postgres"), Some(User { uid: 101, gid: 104 }));
        assert_eq!(lookup(passwd, "nobody"), None);
    }
}
