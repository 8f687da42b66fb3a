//! A text under construction in a buffer that is reused, or null.

/// The capacity above which a buffer is released after use, in bytes.
const KEPT_CAPACITY: usize = 1 << 20;

/// A text in a reusable buffer, in the server's encoding; null after [`TextBuffer::set_null`].
#[derive(Default)]
pub struct TextBuffer {
    bytes: Vec<u8>,
    is_present: bool,
}

impl TextBuffer {
    /// Begins a new value, and returns the buffer to append its bytes to.
    pub fn begin(&mut self) -> &mut Vec<u8> {
        // Release the memory that one huge row needed.
        if self.bytes.capacity() > KEPT_CAPACITY {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.is_present = true;
        &mut self.bytes
    }

    /// Makes it null.
    pub fn set_null(&mut self) {
        self.is_present = false;
    }

    /// Sets it to this value, or to null.
    pub fn set(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.begin().extend_from_slice(value),
            None => self.set_null(),
        }
    }

    /// Sets it to this value, or to null. Returns whether it was another one.
    pub fn replace(&mut self, value: Option<&[u8]>) -> bool {
        let is_other = self.get() != value;
        if is_other {
            self.set(value);
        }
        is_other
    }

    /// The value; `None` for null.
    pub fn get(&self) -> Option<&[u8]> {
        self.is_present.then_some(&self.bytes)
    }

    /// Adds a member to the JSON object that it holds; null becomes an object with this member.
    ///
    /// # Panics
    /// Where it holds something else.
    pub fn add_member(&mut self, key: &str, json: &[u8]) {
        if !self.is_present {
            self.begin().extend_from_slice(b"{}");
        }
        assert_eq!(self.bytes.pop(), Some(b'}'), "the value is a JSON object");
        if self.bytes.last() != Some(&b'{') {
            self.bytes.push(b',');
        }
        self.bytes.push(b'"');
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.extend_from_slice(b"\":");
        self.bytes.extend_from_slice(json);
        self.bytes.push(b'}');
    }
}
