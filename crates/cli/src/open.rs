//! Which source a word of the command line means.

use crate::{
    directory::Directory,
    outcome::{Result, unchecked},
    server::Server,
    source::Source,
};
use std::path::Path;

/// Opens an export's folder, or connects to a server. An empty word is an empty connection string, as psql
/// takes it: all comes from the environment, or is the default.
pub fn open(what: &str, max_entry: usize) -> Result<Box<dyn Source>> {
    if Path::new(what).is_dir() {
        return Ok(Box::new(Directory::open(Path::new(what), max_entry)?));
    }
    if what.is_empty() || what.contains("://") || what.contains('=') {
        return Ok(Box::new(Server::connect(what)?));
    }
    unchecked(format!(
        "{what} is neither an export's folder nor a connection (postgres://user@host/database or \"host=… dbname=…\")"
    ))
}
