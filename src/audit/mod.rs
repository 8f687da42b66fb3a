pub mod enable;
pub mod schema;
