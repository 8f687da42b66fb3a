pub mod audited_table;
pub mod baseline;
pub mod event;
pub mod options;
pub mod trigger;
