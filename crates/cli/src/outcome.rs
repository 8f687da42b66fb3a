//! The program's three answers, in one place.
//!
//! **Invariant**: the exit code is 0 only if everything that was asked for was checked and found intact. 1
//! means that what was checked is not what it claims to be, 3 that the log lacks what a checkpoint seals
//! because it was restored, as it tells itself. Whatever keeps the program from checking is 2, including a
//! wrong command line and a bug of the program itself.

pub use audit_chain_core::problem::Verdict;

use audit_chain_core::check::ReadError;
use std::fmt;

/// The process's exit code for a verdict.
#[must_use]
pub fn code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Intact => 0,
        Verdict::Tampered => 1,
        Verdict::Unchecked => 2,
        Verdict::Restored => 3,
    }
}

/// Why a command ended before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// What was read is not what it claims to be.
    Tampered(String),
    /// The check could not be made.
    Unchecked(String),
    /// Who was to read the result closed the pipe before its end.
    Unread,
}

impl Failure {
    /// The verdict that follows from it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Tampered(_) => Verdict::Tampered,
            Self::Unchecked(_) | Self::Unread => Verdict::Unchecked,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tampered(text) | Self::Unchecked(text) => f.write_str(text),
            Self::Unread => f.write_str("the result was not read to its end"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for ReadError<String> {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Tampered(what) => Self::Damaged(what),
            failure => Self::Failed(failure.to_string()),
        }
    }
}

impl From<ReadError<String>> for Failure {
    fn from(error: ReadError<String>) -> Self {
        match error {
            ReadError::Damaged(what) => Self::Tampered(what),
            ReadError::Failed(what) => Self::Unchecked(what),
        }
    }
}

/// What most functions of this program return.
pub type Result<T> = std::result::Result<T, Failure>;

/// Turns other errors into failures.
pub trait OrFailure<T> {
    /// It could not be checked, because of `what`.
    fn or_unchecked(self, what: impl fmt::Display) -> Result<T>;
    /// What was read is not what it claims to be, as `what` shows.
    fn or_tampered(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> OrFailure<T> for std::result::Result<T, E> {
    fn or_unchecked(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Failure::Unchecked(format!("{what}: {error}")))
    }

    fn or_tampered(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Failure::Tampered(format!("{what}: {error}")))
    }
}

/// A check that could not be made.
pub fn unchecked<T>(what: impl fmt::Display) -> Result<T> {
    Err(Failure::Unchecked(what.to_string()))
}

/// A check that failed.
pub fn tampered<T>(what: impl fmt::Display) -> Result<T> {
    Err(Failure::Tampered(what.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_codes_are_those_documented() {
        let all = [Verdict::Intact, Verdict::Tampered, Verdict::Unchecked];
        assert_eq!(all.map(code), [0, 1, 2]);
        assert_eq!(all.map(Verdict::name), ["intact", "tampered", "unchecked"]);
    }
}
