::pgrx::pg_module_magic!(name = c"audit_chain", version = c"0.1.0");
