//! The keys of an installation: those that sign and verify access tokens, and the one that seals cursors.
//!
//! A folder, shared by all gateways, holds `jwt.pem` (an ES256 private key, PKCS#8) and `cursor.key` (32 random
//! bytes, hex). Every other `*.pem` in it, private or public, is a key whose tokens are still accepted: to rotate,
//! rename `jwt.pem`, create a new one, and delete the old one when its last token has expired.
//!
//! Invariants: an existing file is never overwritten; a reader never sees a file that is half written.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey,
    jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash},
};

const JWT: &str = "jwt.pem";
const CURSOR: &str = "cursor.key";
/// Only the service's own user may read the keys.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} holds no ES256 key in PEM (PKCS#8 for a private one)")]
    NotEs256 { path: PathBuf },
    #[error("{path} does not hold 32 bytes in hexadecimal")]
    NotACursorKey { path: PathBuf },
    #[error("the system has no randomness to give")]
    NoRandomness,
}

/// A key that verifies tokens. Their headers name it by `kid`.
pub struct Verifying {
    pub kid: String,
    pub key: DecodingKey,
}

/// The keys in the folder.
pub struct Keys {
    pub kid: String,
    pub signing: EncodingKey,
    /// The signing key's public half first, then those of rotated keys.
    pub verifying: Vec<Verifying>,
    /// The public halves, as `/.well-known/jwks.json` serves them.
    pub published: JwkSet,
    cursor: [u8; 32],
}

impl Keys {
    /// Reads the folder.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn load(folder: &Path) -> Result<Self, KeyError> {
        let path = folder.join(JWT);
        let signing =
            EncodingKey::from_ec_pem(&read(&path)?).map_err(|_| KeyError::NotEs256 { path: path.clone() })?;
        let own = public_half(&signing).ok_or(KeyError::NotEs256 { path })?;
        let mut published = vec![own];
        for path in others(folder)? {
            let jwk = public_key(&read(&path)?).ok_or(KeyError::NotEs256 { path })?;
            if !published.contains(&jwk) {
                published.push(jwk);
            }
        }
        let verifying = published.iter().filter_map(verifying).collect::<Vec<_>>();
        let kid = verifying.first().map(|key| key.kid.clone()).unwrap_or_default();
        let cursor = cursor_key(&folder.join(CURSOR))?;
        Ok(Self { kid, signing, verifying, published: JwkSet { keys: published }, cursor })
    }

    /// The key that seals cursors.
    pub const fn cursor(&self) -> &[u8; 32] {
        &self.cursor
    }
}

/// Creates the keys that are missing in the folder. Several gateways may do so at the same time.
///
/// # Errors
/// See [`KeyError`].
pub fn create(folder: &Path) -> Result<(), KeyError> {
    let failed = |source| KeyError::Io { path: folder.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(failed)?;
    create_once(&folder.join(JWT), new_jwt_key)?;
    create_once(&folder.join(CURSOR), || {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| KeyError::NoRandomness)?;
        Ok(to_hex(&bytes) + "\n")
    })
}

fn new_jwt_key() -> Result<String, KeyError> {
    let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    let encoded = STANDARD.encode(pair.map_err(|_| KeyError::NoRandomness)?);
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    for line in encoded.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    Ok(pem + "-----END PRIVATE KEY-----\n")
}

/// Writes the content to a draft and links the draft to the name. Of several writers only the first can make the link.
fn create_once(path: &Path, content: impl FnOnce() -> Result<String, KeyError>) -> Result<(), KeyError> {
    let failed = |source| KeyError::Io { path: path.to_owned(), source };
    if path.try_exists().map_err(failed)? {
        return Ok(());
    }
    let draft = path.with_extension(format!("{}.draft", uuid::Uuid::new_v4().simple()));
    let linked = write_private(&draft, &content()?).and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft).map_err(failed)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
        _ => Ok(()),
    }
}

fn write_private(path: &Path, content: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    fs::read(path).map_err(|source| KeyError::Io { path: path.to_owned(), source })
}

/// The PEM files beside the signing key, in the order of their names.
fn others(folder: &Path) -> Result<Vec<PathBuf>, KeyError> {
    let failed = |source| KeyError::Io { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|it| it == "pem") && path.file_name().is_some_and(|it| it != JWT) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn public_key(pem: &[u8]) -> Option<Jwk> {
    if let Ok(private) = EncodingKey::from_ec_pem(pem) {
        return public_half(&private);
    }
    let key = DecodingKey::from_ec_pem(pem).ok()?;
    named(Jwk::from_decoding_key(&key, Some(Algorithm::ES256)).ok()?)
}

fn public_half(key: &EncodingKey) -> Option<Jwk> {
    named(Jwk::from_encoding_key(key, Algorithm::ES256).ok()?)
}

/// Names the key by its RFC 7638 thumbprint.
fn named(mut jwk: Jwk) -> Option<Jwk> {
    jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256).ok()?);
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    Some(jwk)
}

fn verifying(jwk: &Jwk) -> Option<Verifying> {
    Some(Verifying { kid: jwk.common.key_id.clone()?, key: DecodingKey::from_jwk(jwk).ok()? })
}

fn cursor_key(path: &Path) -> Result<[u8; 32], KeyError> {
    let text = read(path)?;
    let text = text.trim_ascii();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = text.chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    let bytes = bytes.collect::<Option<Vec<u8>>>().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes.ok_or_else(|| KeyError::NotACursorKey { path: path.to_owned() })
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A folder that is gone when the test is over.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            Self(std::env::temp_dir().join(format!("mt-keys-{}", uuid::Uuid::new_v4())))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.0).is_ok();
        }
    }

    #[test]
    fn keys_are_created_once_whoever_comes_first() {
        let folder = Folder::new();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| create(&folder.0).unwrap());
            }
        });
        let names =
            fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        assert_eq!(names.len(), 2, "{names:?}");
        for name in [JWT, CURSOR] {
            let mode = fs::metadata(folder.0.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, FILE_MODE);
        }
        let kid = Keys::load(&folder.0).unwrap().kid;
        create(&folder.0).unwrap();
        assert_eq!(Keys::load(&folder.0).unwrap().kid, kid);
    }

    #[test]
    fn a_renamed_key_still_verifies() {
        let folder = Folder::new();
        create(&folder.0).unwrap();
        let old = Keys::load(&folder.0).unwrap().kid;
        fs::rename(folder.0.join(JWT), folder.0.join("2026.pem")).unwrap();
        create(&folder.0).unwrap();
        let keys = Keys::load(&folder.0).unwrap();
        assert_ne!(keys.kid, old);
        let kids = keys.verifying.iter().map(|key| key.kid.clone()).collect::<Vec<_>>();
        assert_eq!(kids, [keys.kid.clone(), old]);
        let published = serde_json::to_value(&keys.published).unwrap();
        assert!(published["keys"][0].get("d").is_none(), "the private half is never published");
        assert_eq!(published["keys"][0]["alg"], "ES256");
    }

    #[test]
    fn what_is_no_key_is_named() {
        let folder = Folder::new();
        create(&folder.0).unwrap();
        fs::write(folder.0.join(CURSOR), "abc").unwrap();
        assert!(matches!(Keys::load(&folder.0), Err(KeyError::NotACursorKey { .. })));
        fs::write(folder.0.join(JWT), "-----BEGIN").unwrap();
        assert!(matches!(Keys::load(&folder.0), Err(KeyError::NotEs256 { .. })));
    }
}
