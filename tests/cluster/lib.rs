//! Whole-server tests; see `tests/`.
