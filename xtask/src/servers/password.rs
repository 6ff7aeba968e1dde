//! The password of a server: made up once, kept in a file that nobody else can read, and never on a command line, where
//! every user of the machine could read it.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use rand::Rng as _;

/// For folders and files that are for their owner alone.
const PRIVATE_FOLDER: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;

/// Letters and digits, so that it needs no quotes in a URL, in SQL or in a configuration.
#[derive(Clone)]
pub struct Password(String);

impl Password {
    /// The one in this file. If there is none, it is made.
    pub fn kept_in(path: &Path) -> Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(Self(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let password = Self::new();
                write_private(path, &format!("{}\n", password.reveal()))?;
                Ok(password)
            }
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// 128 random bits.
    fn new() -> Self {
        Self(format!("{:032x}", rand::rng().random::<u128>()))
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[hidden]")
    }
}

/// Writes a file for its owner alone, whoever could read it before.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let wrote = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE_FILE).open(path)?;
        file.set_permissions(fs::Permissions::from_mode(PRIVATE_FILE))?;
        file.write_all(text.as_bytes())
    };
    wrote().with_context(|| format!("writing {}", path.display()))
}

/// Closes a folder to all but its owner.
pub fn close_folder(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE_FOLDER))
        .with_context(|| format!("closing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_made_once_and_shown_to_nobody() {
        let path = std::env::temp_dir().join(format!("xtask-password-{:08x}", rand::random::<u32>()));
        let password = Password::kept_in(&path).expect("a password");
        assert_eq!(password.reveal().len(), 32);
        assert_eq!(Password::kept_in(&path).expect("the same").reveal(), password.reveal());
        assert_ne!(Password::new().reveal(), password.reveal());
        assert!(!format!("{password:?}").contains(password.reveal()));
        let mode = fs::metadata(&path).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, PRIVATE_FILE);
        fs::remove_file(path).expect("the file");
    }
}
