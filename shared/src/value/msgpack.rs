//! MessagePack as slices: one pass without recursion checks that a value is well-formed; arrays and maps are then
//! split into the slices of their elements.

use rmp::{
    Marker,
    decode::{read_array_len, read_map_len, read_marker},
};

/// Moves past one value; `None` if it is cut short, uses the reserved marker, or holds text that is not UTF-8.
pub(crate) fn skip(rest: &mut &[u8]) -> Option<()> {
    // A count of the values still to come replaces recursion. Each value takes at least one byte, so a false length
    // runs into the end of the bytes.
    let mut pending: u64 = 1;
    while pending > 0 {
        pending = pending - 1 + skip_flat(rest)?;
    }
    Some(())
}

/// Moves past one scalar, or past the head of an array or map. Returns the number of values in the array or map.
fn skip_flat(rest: &mut &[u8]) -> Option<u64> {
    match read_marker(rest).ok()? {
        Marker::Null | Marker::True | Marker::False | Marker::FixPos(_) | Marker::FixNeg(_) => {}
        Marker::U8 | Marker::I8 => drop(take(rest, 1)?),
        Marker::U16 | Marker::I16 => drop(take(rest, 2)?),
        Marker::U32 | Marker::I32 | Marker::F32 => drop(take(rest, 4)?),
        Marker::U64 | Marker::I64 | Marker::F64 => drop(take(rest, 8)?),
        Marker::FixStr(length) => text(rest, length.into())?,
        Marker::Str8 => length(rest, 1).and_then(|length| text(rest, length))?,
        Marker::Str16 => length(rest, 2).and_then(|length| text(rest, length))?,
        Marker::Str32 => length(rest, 4).and_then(|length| text(rest, length))?,
        Marker::Bin8 => drop(length(rest, 1).and_then(|length| take(rest, length))?),
        Marker::Bin16 => drop(length(rest, 2).and_then(|length| take(rest, length))?),
        Marker::Bin32 => drop(length(rest, 4).and_then(|length| take(rest, length))?),
        Marker::FixExt1 => drop(take(rest, 1 + 1)?),
        Marker::FixExt2 => drop(take(rest, 1 + 2)?),
        Marker::FixExt4 => drop(take(rest, 1 + 4)?),
        Marker::FixExt8 => drop(take(rest, 1 + 8)?),
        Marker::FixExt16 => drop(take(rest, 1 + 16)?),
        Marker::Ext8 => drop(length(rest, 1).and_then(|length| take(rest, 1 + length))?),
        Marker::Ext16 => drop(length(rest, 2).and_then(|length| take(rest, 1 + length))?),
        Marker::Ext32 => drop(length(rest, 4).and_then(|length| take(rest, 1 + length))?),
        Marker::FixArray(length) => return Some(length.into()),
        Marker::Array16 => return length(rest, 2).map(|length| length as u64),
        Marker::Array32 => return length(rest, 4).map(|length| length as u64),
        Marker::FixMap(length) => return Some(2 * u64::from(length)),
        Marker::Map16 => return length(rest, 2).map(|length| 2 * length as u64),
        Marker::Map32 => return length(rest, 4).map(|length| 2 * length as u64),
        Marker::Reserved => return None,
    }
    Some(0)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn text(rest: &mut &[u8], length: usize) -> Option<()> {
    std::str::from_utf8(take(rest, length)?).ok().map(|_| ())
}

/// A big-endian length of this many bytes.
fn length(rest: &mut &[u8], bytes: usize) -> Option<usize> {
    Some(take(rest, bytes)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
}

/// The elements of a well-formed array.
pub(crate) fn elements(mut raw: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let count = read_array_len(&mut raw).ok()?;
    Some((0..count).map_while(move |_| one(&mut raw)))
}

/// Hands each field of a well-formed map whose name is in `names` to `insert`, which says whether the name was new.
/// `None` if the value is no map or a name stands twice.
pub(super) fn object<'a>(
    mut raw: &'a [u8],
    names: &'static [&'static [&'static str]],
    mut insert: impl FnMut(&'static str, &'a [u8]) -> bool,
) -> Option<()> {
    for _ in 0..read_map_len(&mut raw).ok()? {
        let (key, value) = (one(&mut raw)?, one(&mut raw)?);
        let known = rmp::decode::read_str_from_slice(key).ok().map(|(key, _)| key);
        if let Some(name) = names.iter().flat_map(|names| names.iter()).find(|name| Some(**name) == known)
            && !insert(name, value)
        {
            return None;
        }
    }
    Some(())
}

fn one<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let start = *rest;
    skip(rest)?;
    start.get(..start.len() - rest.len())
}
