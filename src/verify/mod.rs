pub mod aggregate;
pub mod checkpoints;
pub mod report;
