#!/usr/bin/env bash
# The demo, against the server of PGHOST and PGPORT; run it by `make demo`.
set -euo pipefail

psql -XqAt -c 'CREATE EXTENSION audit_chain'
psql -XqAt -c "SELECT extname, extversion FROM pg_extension WHERE extname = 'audit_chain'"
