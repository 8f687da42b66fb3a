//! The program's three answers, in one place.
//!
//! **Invariant**: 0 is returned only where everything that was asked for was checked and found whole. 1 means that
//! what was checked is not what it claims to be. Whatever keeps the program from checking is 2, a wrong command line
//! and a fault of the program itself included.

use std::{fmt, process::ExitCode};

/// What a command found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Checked, and whole.
    Verified,
    /// Checked, and not what it claims to be.
    Tampered,
    /// Not checked.
    Unchecked,
}

impl Verdict {
    /// The process's exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Verified => 0,
            Self::Tampered => 1,
            Self::Unchecked => 2,
        }
    }

    /// The same, as the standard library wants it.
    #[must_use]
    pub fn exit_code(self) -> ExitCode {
        self.code().into()
    }

    /// The answer's name in JSON output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Tampered => "tampered",
            Self::Unchecked => "unchecked",
        }
    }
}

/// Why a command ended before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// What was read is not what it claims to be.
    Tampered(String),
    /// The check could not be made.
    Unchecked(String),
}

impl Failure {
    /// The answer that it amounts to.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Tampered(_) => Verdict::Tampered,
            Self::Unchecked(_) => Verdict::Unchecked,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Tampered(text) | Self::Unchecked(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Failure {}

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
        let all = [Verdict::Verified, Verdict::Tampered, Verdict::Unchecked];
        assert_eq!(all.map(Verdict::code), [0, 1, 2]);
        assert_eq!(all.map(Verdict::name), ["verified", "tampered", "unchecked"]);
    }
}
