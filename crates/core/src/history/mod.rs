//! What a log says of a table's past, as far as that needs no database: columns under their former names
//! ([`columns`]), the versions of a row in their order ([`versions`]), the rows of a table without a key
//! ([`replay`], [`content`]), and what a transaction did to each row in the end ([`net`]).

pub mod columns;
pub mod content;
pub mod image;
pub mod net;
pub mod replay;
pub mod versions;

/// A place in the order in which a table's entries were captured. Along a chain `at` never decreases, and a
/// row is locked from its change until the transaction ends: the entries about one row, or about a table's
/// definition, come in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// When the entry was captured, in microseconds since any epoch.
    pub at: i64,
    /// Its chain.
    pub chain: i32,
    /// Its place in the chain.
    pub seq: i64,
}
