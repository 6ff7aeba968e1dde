//! Sealed cursors: they cannot be forged, altered, or used by another user.

use proptest::prelude::*;
use shared::{
    cursor::{Cursor, Invalid, Sealer},
    id::{EventId, Position, Seq},
};

use crate::strategy;

fn cursor() -> impl Strategy<Value = Cursor> {
    (any::<u32>(), any::<u64>(), any::<u64>())
        .prop_map(|(epoch, seq, id)| Cursor { epoch, position: Position { seq: Seq(seq), id: EventId(id) } })
}

proptest! {
    #[test]
    fn what_was_sealed_opens(key in any::<[u8; 32]>(), user in strategy::user(), cursor in cursor()) {
        let sealer = Sealer::new(&key);
        prop_assert_eq!(sealer.open(user, &sealer.seal(user, cursor)), Ok(cursor));
    }

    #[test]
    fn another_user_or_key_does_not_open_it(
        (key, other_key) in (any::<[u8; 32]>(), any::<[u8; 32]>()),
        (user, other) in (strategy::user(), strategy::user()),
        cursor in cursor(),
    ) {
        let sealed = Sealer::new(&key).seal(user, cursor);
        if user != other {
            prop_assert_eq!(Sealer::new(&key).open(other, &sealed), Err(Invalid));
        }
        if key != other_key {
            prop_assert_eq!(Sealer::new(&other_key).open(user, &sealed), Err(Invalid));
        }
    }

    #[test]
    fn arbitrary_text_is_no_cursor(user in strategy::user(), text in "[A-Za-z0-9_-]{0,60}|\\PC{0,60}") {
        prop_assert_eq!(Sealer::new(&[7; 32]).open(user, &text), Err(Invalid));
    }
}

#[test]
fn any_flipped_bit_and_any_cut_is_noticed() {
    let (sealer, user) = (Sealer::new(&[7; 32]), crate::samples::user(9));
    let position = Position { seq: Seq(4_711), id: EventId(0x0123_4567_89AB_CDEF) };
    let sealed = sealer.seal(user, Cursor { epoch: 3, position });
    for at in 0..sealed.len() {
        assert_eq!(sealer.open(user, &sealed[..at]), Err(Invalid), "cut at {at}");
        for bit in 0..8 {
            let mut bytes = sealed.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            if let Ok(text) = String::from_utf8(bytes) {
                assert_eq!(sealer.open(user, &text), Err(Invalid), "byte {at}, bit {bit}");
            }
        }
    }
    assert_eq!(sealer.open(user, &format!("{sealed}A")), Err(Invalid));
}
