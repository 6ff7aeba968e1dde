//! Writing values: the primitives of the two encodings, straight into a buffer.

use uuid::Uuid;

/// A writer of values. A list or object is opened with its length; its elements follow in order.
pub(crate) trait Sink {
    fn nil(&mut self);
    fn boolean(&mut self, value: bool);
    fn uint(&mut self, value: u64);
    fn text(&mut self, value: &str);
    fn uuid(&mut self, value: Uuid);
    fn open_list(&mut self, length: usize);
    /// Called before each element of a list.
    fn element(&mut self);
    fn close_list(&mut self);
    fn open_object(&mut self, length: usize);
    /// Called before each value of an object; `quoted` is the name with quotes and colon.
    fn key(&mut self, name: &'static str, quoted: &'static str);
    fn close_object(&mut self);
    /// The buffer, by encoding, for a writer that has one form for each.
    fn buffer(&mut self) -> Buffer<'_>;
}

/// Where a [`Sink`] writes, and in which encoding.
pub(crate) enum Buffer<'a> {
    Json(&'a mut Vec<u8>),
    Msgpack(&'a mut Vec<u8>),
}

/// JSON without white space.
pub(crate) struct Json<'a>(pub(crate) &'a mut Vec<u8>);

impl Json<'_> {
    fn separate(&mut self) {
        if !matches!(self.0.last(), Some(b'[' | b'{')) {
            self.0.push(b',');
        }
    }
}

impl Sink for Json<'_> {
    fn nil(&mut self) {
        self.0.extend_from_slice(b"null");
    }

    fn boolean(&mut self, value: bool) {
        self.0.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn uint(&mut self, value: u64) {
        self.0.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn text(&mut self, value: &str) {
        done(serde_json::to_writer(&mut *self.0, value));
    }

    fn uuid(&mut self, value: Uuid) {
        self.0.push(b'"');
        let mut buffer = Uuid::encode_buffer();
        self.0.extend_from_slice(value.hyphenated().encode_lower(&mut buffer).as_bytes());
        self.0.push(b'"');
    }

    fn open_list(&mut self, _: usize) {
        self.0.push(b'[');
    }

    fn element(&mut self) {
        self.separate();
    }

    fn close_list(&mut self) {
        self.0.push(b']');
    }

    fn open_object(&mut self, _: usize) {
        self.0.push(b'{');
    }

    fn key(&mut self, _: &'static str, quoted: &'static str) {
        self.separate();
        self.0.extend_from_slice(quoted.as_bytes());
    }

    fn close_object(&mut self) {
        self.0.push(b'}');
    }

    fn buffer(&mut self) -> Buffer<'_> {
        Buffer::Json(self.0)
    }
}

/// MessagePack in its shortest forms.
pub(crate) struct Msgpack<'a>(pub(crate) &'a mut Vec<u8>);

impl Sink for Msgpack<'_> {
    fn nil(&mut self) {
        done(rmp::encode::write_nil(self.0));
    }

    fn boolean(&mut self, value: bool) {
        done(rmp::encode::write_bool(self.0, value));
    }

    fn uint(&mut self, value: u64) {
        done(rmp::encode::write_uint(self.0, value));
    }

    fn text(&mut self, value: &str) {
        done(rmp::encode::write_str(self.0, value));
    }

    fn uuid(&mut self, value: Uuid) {
        done(rmp::encode::write_bin(self.0, value.as_bytes()));
    }

    fn open_list(&mut self, length: usize) {
        done(rmp::encode::write_array_len(self.0, length as u32));
    }

    fn element(&mut self) {}

    fn close_list(&mut self) {}

    fn open_object(&mut self, length: usize) {
        done(rmp::encode::write_map_len(self.0, length as u32));
    }

    fn key(&mut self, name: &'static str, _: &'static str) {
        self.text(name);
    }

    fn close_object(&mut self) {}

    fn buffer(&mut self) -> Buffer<'_> {
        Buffer::Msgpack(self.0)
    }
}

/// Drops the result of a write into a `Vec`, which cannot fail.
fn done<T, E>(_: Result<T, E>) {}
