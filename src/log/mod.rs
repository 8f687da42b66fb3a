pub mod claim;
pub mod context;
pub mod entry;
pub mod transaction;
