//! The salts of digests.

use crate::pg::session;

/// Random bytes, fetched many at a time: a system call for each entry would cost more than its hash.
pub struct Salts {
    bytes: Box<[u8; 4096]>,
    used: usize,
}

impl Default for Salts {
    fn default() -> Self {
        Self { bytes: Box::new([0; 4096]), used: 4096 }
    }
}

impl Salts {
    /// 16 bytes that nobody has seen.
    pub fn next(&mut self) -> [u8; 16] {
        if self.used + 16 > self.bytes.len() {
            session::random(&mut self.bytes[..]);
            self.used = 0;
        }
        let salt = self.bytes[self.used..self.used + 16].try_into().expect("16 bytes");
        // A salt is given out once, and not kept here.
        self.bytes[self.used..self.used + 16].fill(0);
        self.used += 16;
        salt
    }
}
