//! Access tokens: JWTs signed with ES256. Every gateway verifies them alone, with the public keys of the installation.

use std::{collections::HashMap, str::FromStr};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind, jwk::JwkSet};
use serde::{Deserialize, Serialize};
use shared::{code::Code, id::UserId};
use uuid::Uuid;

use super::{AuthSettings, Identity, keys::Keys, verified::Verified};
use crate::infra::clock::unix_ms;

/// Longer than any access token that we issue; longer text is refused before it is parsed.
const MAX_LENGTH: usize = 1_024;
/// How far the clock of the gateway that issued a token may run ahead of this one, in seconds. A token from further
/// ahead was not issued by a gateway whose clock works.
const CLOCK_SKEW_S: u64 = 10;

/// Issues and verifies access tokens.
pub struct Tokens {
    signing: EncodingKey,
    header: Header,
    verifying: HashMap<String, DecodingKey>,
    validation: Validation,
    verified: Verified,
    published: JwkSet,
    issuer: String,
    audience: String,
    ttl_s: u64,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    /// The user's id, in decimal, since `sub` is a string.
    sub: String,
    /// The token family, in the one form in which we write it.
    #[serde(rename = "did")]
    family: String,
    iat: u64,
    exp: u64,
}

/// The signature could not be made; the cause is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an access token could not be signed")]
pub struct CannotSign;

impl Tokens {
    pub fn new(keys: &Keys, settings: &AuthSettings) -> Self {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        validation.set_issuer(&[&settings.jwt_issuer]);
        validation.set_audience(&[&settings.jwt_audience]);
        let header = Header { kid: Some(keys.kid.clone()), ..Header::new(Algorithm::ES256) };
        Self {
            signing: keys.signing.clone(),
            header,
            verifying: keys.verifying.iter().map(|key| (key.kid.clone(), key.key.clone())).collect(),
            validation,
            verified: Verified::default(),
            published: keys.published.clone(),
            issuer: settings.jwt_issuer.clone(),
            audience: settings.jwt_audience.clone(),
            ttl_s: settings.access_ttl_s,
        }
    }

    /// The public keys that verify the tokens.
    pub const fn published(&self) -> &JwkSet {
        &self.published
    }

    /// The life of a token that [`Tokens::issue`] makes, in seconds.
    pub const fn ttl_s(&self) -> u64 {
        self.ttl_s
    }

    /// Makes a token of this family of the user. It is valid from now on.
    ///
    /// # Errors
    /// [`CannotSign`] if the crypto library refuses.
    pub fn issue(&self, user: UserId, family: Uuid) -> Result<String, CannotSign> {
        self.issue_for(user, family, self.ttl_s)
    }

    /// The same, with a life of `ttl_s` seconds.
    ///
    /// # Errors
    /// [`CannotSign`] if the crypto library refuses.
    pub fn issue_for(&self, user: UserId, family: Uuid, ttl_s: u64) -> Result<String, CannotSign> {
        let now = unix_ms() / 1_000;
        let (iss, aud) = (self.issuer.clone(), self.audience.clone());
        let (sub, family) = (user.to_string(), family.to_string());
        let claims = Claims { iss, aud, sub, family, iat: now, exp: now.saturating_add(ttl_s) };
        jsonwebtoken::encode(&self.header, &claims, &self.signing).map_err(|error| {
            tracing::error!(%error, "an access token could not be signed");
            CannotSign
        })
    }

    /// The user of the token. A revocation of its family is not looked at here, but by [`super::Revocations`].
    ///
    /// # Errors
    /// `auth.expired` if we issued the token and it has expired, else `auth.invalid_token`.
    pub fn verify(&self, token: &str) -> Result<Identity, Code> {
        let identity = match self.verified.get(token) {
            Some(identity) => identity,
            None => self.check(token)?,
        };
        // The library still accepts a token in the very second in which it ends.
        if unix_ms() >= identity.expires_ms { Err(Code::AuthExpired) } else { Ok(identity) }
    }

    /// Checks the signature and the claims of a token that was not verified before.
    fn check(&self, token: &str) -> Result<Identity, Code> {
        if token.len() > MAX_LENGTH {
            return Err(Code::AuthInvalidToken);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Code::AuthInvalidToken)?;
        // RFC 7515, 4.1.11: extensions that must be understood are not understood here.
        if header.crit.is_some() {
            return Err(Code::AuthInvalidToken);
        }
        let key = header.kid.and_then(|kid| self.verifying.get(&kid)).ok_or(Code::AuthInvalidToken)?;
        let decoded = jsonwebtoken::decode::<Claims>(token, key, &self.validation);
        let Claims { sub, family, iat, exp, .. } = decoded.map_err(|error| code_of(&error))?.claims;
        if iat > unix_ms() / 1_000 + CLOCK_SKEW_S {
            return Err(Code::AuthInvalidToken);
        }
        let (user, family) = (canonical(&sub)?, canonical(&family)?);
        let identity = Identity { user, family, expires_ms: exp.saturating_mul(1_000) };
        self.verified.put(token, identity);
        Ok(identity)
    }
}

/// The value of a claim, which must be written as we write it: otherwise one identity would have many names.
fn canonical<T: FromStr + ToString>(text: &str) -> Result<T, Code> {
    let value = text.parse::<T>().map_err(|_| Code::AuthInvalidToken)?;
    if value.to_string() == text { Ok(value) } else { Err(Code::AuthInvalidToken) }
}

fn code_of(error: &jsonwebtoken::errors::Error) -> Code {
    match error.kind() {
        ErrorKind::ExpiredSignature => Code::AuthExpired,
        _ => Code::AuthInvalidToken,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        auth: AuthSettings,
    }

    fn keys() -> Keys {
        let folder = std::env::temp_dir().join(format!("mt-token-{}", Uuid::new_v4()));
        crate::auth::keys::create(&folder).unwrap();
        let keys = Keys::load(&folder).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        keys
    }

    fn settings() -> AuthSettings {
        Cli::parse_from(["test"]).auth
    }

    fn claims() -> Value {
        let now = unix_ms() / 1_000;
        json!({ "iss": "mini-telegram", "aud": "mini-telegram", "sub": "7", "did": Uuid::nil(),
                "iat": now, "exp": now + 60 })
    }

    #[test]
    fn an_issued_token_says_who_and_until_when() {
        let tokens = Tokens::new(&keys(), &settings());
        let (user, family) = (UserId::new(7).unwrap(), Uuid::new_v4());
        let identity = tokens.verify(&tokens.issue(user, family).unwrap()).unwrap();
        assert_eq!((identity.user, identity.family), (user, family));
        let left = identity.expires_ms - unix_ms();
        assert!((898_000..=900_000).contains(&left), "{left}");
    }

    #[test]
    fn each_claim_is_required_and_checked() {
        let keys = keys();
        let tokens = Tokens::new(&keys, &settings());
        let verify = |claims: &Value| {
            let header = Header { kid: Some(keys.kid.clone()), ..Header::new(Algorithm::ES256) };
            tokens.verify(&jsonwebtoken::encode(&header, claims, &keys.signing).unwrap())
        };
        assert!(verify(&claims()).is_ok());
        for claim in ["iss", "aud", "sub", "did", "iat", "exp"] {
            let mut without = claims();
            without.as_object_mut().unwrap().remove(claim);
            assert_eq!(verify(&without), Err(Code::AuthInvalidToken), "without {claim}");
        }
        for (claim, wrong) in [
            ("iss", json!("other")),
            ("aud", json!("other")),
            ("aud", json!(["mini-telegram", "other"])),
            ("sub", json!("0")),
            ("sub", json!("x")),
            ("sub", json!("07")),
            ("sub", json!("+7")),
            ("sub", json!(" 7")),
            ("sub", json!(7)),
            ("did", json!("x")),
            ("did", json!(Uuid::nil().simple().to_string())),
            ("did", json!(Uuid::max().to_string().to_uppercase())),
            ("did", json!(Uuid::nil().urn().to_string())),
            ("iat", json!(unix_ms() / 1_000 + CLOCK_SKEW_S + 60)),
            ("iat", json!("now")),
            ("nbf", json!(unix_ms() / 1_000 + 60)),
            ("nbf", json!("soon")),
        ] {
            let mut changed = claims();
            changed[claim] = wrong;
            assert_eq!(verify(&changed), Err(Code::AuthInvalidToken), "{claim}");
        }
        for (claim, right) in [
            ("nbf", json!(unix_ms() / 1_000)),
            // The gateway that issued it runs a little ahead.
            ("iat", json!(unix_ms() / 1_000 + CLOCK_SKEW_S / 2)),
        ] {
            let mut changed = claims();
            changed[claim] = right;
            assert!(verify(&changed).is_ok(), "{claim}");
        }
        let mut over = claims();
        over["exp"] = json!(unix_ms() / 1_000);
        assert_eq!(verify(&over), Err(Code::AuthExpired), "no leeway");
    }

    #[test]
    fn a_header_with_extensions_that_must_be_understood_is_refused() {
        let keys = keys();
        let tokens = Tokens::new(&keys, &settings());
        let plain = Header { kid: Some(keys.kid.clone()), ..Header::new(Algorithm::ES256) };
        for names in [vec!["b64".to_owned()], Vec::new()] {
            let header = Header { crit: Some(names), ..plain.clone() };
            let token = jsonwebtoken::encode(&header, &claims(), &keys.signing).unwrap();
            assert_eq!(tokens.verify(&token), Err(Code::AuthInvalidToken));
        }
        assert!(tokens.verify(&jsonwebtoken::encode(&plain, &claims(), &keys.signing).unwrap()).is_ok());
    }

    #[test]
    fn foreign_and_broken_tokens_are_invalid() {
        let (keys, settings) = (keys(), settings());
        let tokens = Tokens::new(&keys, &settings);
        let foreign = Tokens::new(&self::keys(), &settings);
        let foreign = foreign.issue(UserId::new(7).unwrap(), Uuid::nil()).unwrap();
        let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiI3In0.";
        let symmetric = jsonwebtoken::encode(
            &Header { kid: Some(keys.kid.clone()), ..Header::new(Algorithm::HS256) },
            &claims(),
            &EncodingKey::from_secret(keys.kid.as_bytes()),
        );
        let own = tokens.issue(UserId::new(7).unwrap(), Uuid::nil()).unwrap();
        let cut = &own[..own.len() - 1];
        let long = "a".repeat(100_000);
        for token in [&foreign, unsigned, &symmetric.unwrap(), cut, &long, "", ".", "..", "ä.b.c"] {
            assert_eq!(tokens.verify(token), Err(Code::AuthInvalidToken), "{token}");
        }
    }
}
