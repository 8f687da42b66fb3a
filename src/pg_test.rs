//! Tests that PostgreSQL runs inside a backend, for `cargo pgrx test`.
//!
//! The suites below `tests/` cover the extension. These tests show that it installs and works under pgrx's
//! own test framework, and they are the place for code that only a backend can run.

/// Called by the framework before the first test.
#[cfg(test)]
pub fn setup(_options: Vec<&str>) {}

/// Settings of the framework's server.
#[cfg(test)]
#[must_use]
pub fn postgresql_conf_options() -> Vec<&'static str> {
    Vec::new()
}

#[pgrx::pg_schema]
mod tests {
    use pgrx::{PgSqlErrorCode, PgTryBuilder, Spi, pg_test};

    const AUDITED_TABLE: &str = "CREATE TABLE public.account (id integer PRIMARY KEY, balance integer);
        SELECT audit_enable('public.account');
        INSERT INTO public.account VALUES (1, 10), (2, 20);
        UPDATE public.account SET balance = 15 WHERE id = 1";

    #[pg_test]
    fn changes_of_an_audited_table_are_recorded_and_verified() {
        Spi::run(AUDITED_TABLE).unwrap();
        let operations =
            Spi::get_one::<String>("SELECT string_agg(operation, ' ' ORDER BY seq) FROM audit_log");
        assert_eq!(operations.unwrap().as_deref(), Some("ENABLE INSERT INSERT UPDATE"));
        let (valid, entries) =
            Spi::get_two::<bool, i64>("SELECT valid, entries FROM audit_verify()").unwrap();
        assert_eq!((valid, entries), (Some(true), Some(4)));
    }

    #[pg_test]
    fn a_superuser_cannot_edit_the_log() {
        Spi::run(AUDITED_TABLE).unwrap();
        let refused = PgTryBuilder::new(|| {
            Spi::run("UPDATE audit_log SET actor = 'nobody'").unwrap();
            false
        })
        .catch_when(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, |_| true)
        .execute();
        assert!(refused);
    }
}
