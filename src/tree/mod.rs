pub mod checkpoint;
pub mod proof;
pub mod store;
