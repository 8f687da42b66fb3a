pub mod checkpoints;
pub mod entries;
pub mod report;
