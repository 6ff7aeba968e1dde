//! The log's events: their bytes decode for ever, and no bytes panic.

use proptest::{collection::vec, prelude::*};
use shared::{
    event::{DecodeError, Event, Head, Kind, VERSION},
    id::Seq,
};

use crate::{golden, samples, strategy};

#[test]
fn golden_bytes_decode_and_are_still_written() {
    let versions = [(1, samples::events()), (VERSION, samples::events_of_version_2())];
    for (version, events) in versions {
        for (name, event) in events {
            let bytes = golden::read(&format!("events/v{version}/{name}.msgpack"), &event.encode());
            assert_eq!(Event::decode(&bytes).unwrap(), event, "{name}");
            assert_eq!(event.encode(), bytes, "{name}: the bytes of a published version changed");
        }
    }
}

#[test]
fn a_reader_of_version_1_stops_only_before_events_that_it_would_judge_otherwise() {
    let version = |event: &Event| event.encode()[1];
    let looked = |(_, event): (_, Event)| Event { unique_as_of: Some(Seq(5)), ..event };
    assert!(samples::events().into_iter().map(looked).all(|event| version(&event) == 1));
    assert!(samples::events_of_version_2().iter().all(|(_, event)| version(event) == 2));
}

#[test]
fn every_fixture_of_every_version_decodes() {
    let names: Vec<_> =
        (1..=VERSION).flat_map(|version| golden::names(&format!("events/v{version}"))).collect();
    assert!(names.len() >= samples::events().len());
    for name in names {
        assert!(Event::decode(&golden::read(&name, &[])).is_ok(), "{name}");
    }
}

#[test]
fn every_kind_has_a_fixture() {
    let sampled: Vec<Kind> = samples::events().iter().map(|(_, event)| event.fact.kind()).collect();
    for kind in Kind::ALL {
        assert!(sampled.contains(&kind), "{kind:?}");
        assert_eq!(Kind::from_number(kind.number()), Some(kind));
        assert_eq!(Kind::from_i16(kind.as_i16()), Some(kind));
    }
}

#[test]
fn the_first_bytes_are_version_kind_actor() {
    let bytes = samples::events()[0].1.encode();
    assert_eq!(bytes[..4], [0x96, 1, 0, 7]);
}

#[test]
fn newer_builds_are_told_from_corruption() {
    let mut bytes = samples::events()[0].1.encode();
    bytes[1] = VERSION + 1;
    assert!(matches!(Event::decode(&bytes), Err(DecodeError::UnknownVersion(v)) if v == VERSION + 1));
    bytes[1] = VERSION;
    bytes[2] = 100;
    assert!(matches!(Event::decode(&bytes), Err(DecodeError::UnknownKind(100))));
    assert!(Event::decode(&bytes).is_err_and(|error| !error.is_corrupt()));
    for cut in [&b""[..], b"\xc1", b"\x96", b"{}", &[0x96, 0]] {
        assert!(Event::decode(cut).is_err_and(|error| error.is_corrupt()), "{cut:?}");
    }
}

proptest! {
    #[test]
    fn round_trip(event in strategy::event()) {
        prop_assert_eq!(Event::decode(&event.encode()).unwrap(), event);
    }

    #[test]
    fn the_head_agrees_with_the_whole(event in strategy::event()) {
        let bytes = event.encode();
        let (head, _) = Head::read(&bytes).unwrap();
        prop_assert_eq!(
            (head.kind, head.actor, head.device, head.uuid, head.unique_as_of),
            (event.fact.kind(), event.actor, event.device.as_str(), event.uuid, event.unique_as_of)
        );
    }

    #[test]
    fn arbitrary_bytes_are_an_event_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
        heads_agree(&bytes)?;
    }

    #[test]
    fn damaged_events_are_an_event_or_an_error(
        event in strategy::event(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = event.encode();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        heads_agree(&bytes)?;
        // A whole event that is cut short is none. (Damage may have shortened what is read of a damaged one.)
        let whole = event.encode();
        prop_assert!(Event::decode(&whole[..cut.index(whole.len())]).is_err());
    }
}

/// What decodes has a head that says the same; what has no head does not decode.
fn heads_agree(bytes: &[u8]) -> Result<(), TestCaseError> {
    match (Event::decode(bytes), Head::read(bytes)) {
        (Ok(event), Ok((head, _))) => {
            prop_assert_eq!((head.kind, head.actor, head.uuid), (event.fact.kind(), event.actor, event.uuid));
        }
        (Ok(_), Err(error)) => prop_assert!(false, "no head: {}", error),
        (Err(_), _) => {}
    }
    Ok(())
}
