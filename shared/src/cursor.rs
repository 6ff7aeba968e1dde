//! The cursor that clients hold: a position in the log, sealed.
//!
//! Layout (version 1): `version u8 | epoch u32 | seq u64 | id u64 | tag 16 bytes`, little endian, base64url. The tag is
//! a truncated HMAC-SHA-256 over the layout and the user. A cursor can therefore neither be forged nor be used by
//! another user. It is opaque to clients but not secret: it reveals the length of the log and no content.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::id::{EventId, Position, Seq, UserId};

const VERSION: u8 = 1;
const BODY: usize = 1 + 4 + 8 + 8;
const TAG: usize = 16;

/// A place in one history of the log. The epoch counts how often the log lost its tail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    pub epoch: u32,
    pub position: Position,
}

/// The text is no cursor of this user: damaged, foreign, or sealed with another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is damaged or foreign")]
pub struct Invalid;

/// Seals and opens cursors; shared by all gateways of an installation.
#[derive(Clone)]
pub struct Sealer(hmac::Key);

impl Sealer {
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    pub fn seal(&self, user: UserId, cursor: Cursor) -> String {
        let mut bytes = [0; BODY + TAG];
        bytes[0] = VERSION;
        bytes[1..5].copy_from_slice(&cursor.epoch.to_le_bytes());
        bytes[5..13].copy_from_slice(&cursor.position.seq.get().to_le_bytes());
        bytes[13..BODY].copy_from_slice(&cursor.position.id.0.to_le_bytes());
        let tag = self.tag(user, &bytes[..BODY]);
        bytes[BODY..].copy_from_slice(&tag.as_ref()[..TAG]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// # Errors
    /// [`Invalid`] unless [`Sealer::seal`] made the text for this user.
    pub fn open(&self, user: UserId, text: &str) -> Result<Cursor, Invalid> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Invalid)?;
        let bytes: &[u8; BODY + TAG] = bytes.as_slice().try_into().map_err(|_| Invalid)?;
        let tag = self.tag(user, &bytes[..BODY]);
        aws_lc_rs::constant_time::verify_slices_are_equal(&tag.as_ref()[..TAG], &bytes[BODY..])
            .map_err(|_| Invalid)?;
        if bytes[0] != VERSION {
            return Err(Invalid);
        }
        let (mut epoch, mut seq, mut id) = ([0; 4], [0; 8], [0; 8]);
        epoch.copy_from_slice(&bytes[1..5]);
        seq.copy_from_slice(&bytes[5..13]);
        id.copy_from_slice(&bytes[13..BODY]);
        let position = Position { seq: Seq(u64::from_le_bytes(seq)), id: EventId(u64::from_le_bytes(id)) };
        Ok(Cursor { epoch: u32::from_le_bytes(epoch), position })
    }

    fn tag(&self, user: UserId, body: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&user.get().to_le_bytes());
        context.update(body);
        context.sign()
    }
}
