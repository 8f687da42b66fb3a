pub mod ddl;
pub mod follow;
pub mod hooks;
