# What a developer calls; each target is a few lines in scripts/.
#
#   PG_CONFIG=…   the PostgreSQL to install into, or to test a private copy of
#   SERVER=16     for test, regress, isolation, bench: 15 (default), 16 or 18, in private copies below target/servers
#   TESTS="a b"   for regress, isolation: these only

SERVER ?= 15
TESTS ?=
FUZZ_SECONDS ?= 60

# The private copy's pg_config; made on first use.
private = PG_CONFIG="$$(scripts/private-server $(SERVER))" && export PG_CONFIG
# Where the extension's code has not changed, cargo knows.
built = $(private) && scripts/build-install

.PHONY: help setup demo test test-all regress regress-accept isolation isolation-accept cluster bench bench-quick \
	install package fmt lint fuzz clean

help:
	@echo 'make demo          see it work: audit, tamper, find out'
	@echo 'make test          all tests, against PostgreSQL 15 (SERVER=16, SERVER=18, or PG_CONFIG=…)'
	@echo 'make test-all      all tests, against PostgreSQL 15, 16 and 18'
	@echo 'make regress       only the SQL tests (TESTS="capture guard"); regress-accept takes the results as expected'
	@echo 'make isolation     only the concurrency tests (TESTS=…); isolation-accept likewise'
	@echo 'make cluster       only the whole-server tests'
	@echo 'make bench         side-by-side benchmarks (bench-quick: a short run)'
	@echo 'make install       build and install into the server of PG_CONFIG (default: the pg_config on the PATH)'
	@echo 'make package       an archive for the server of PG_CONFIG'
	@echo 'make setup         install what building and testing need'
	@echo 'make fmt lint fuzz clean'

setup:
	@scripts/setup

demo: setup
	@scripts/demo

test: setup
	@scripts/test $(SERVER)

test-all: setup
	@scripts/test 15 16 18

regress: setup
	@$(built) && scripts/regress sql $(TESTS)

regress-accept: setup
	@$(built) && scripts/regress sql --accept $(TESTS)

isolation: setup
	@$(built) && scripts/regress isolation $(TESTS)

isolation-accept: setup
	@$(built) && scripts/regress isolation --accept $(TESTS)

cluster: setup
	@$(built) && cargo test --package cluster-tests -- $(TESTS)

bench: setup
	@$(built) && cargo run --release --package bench -- --output docs/performance.md

bench-quick: setup
	@$(built) && cargo run --release --package bench -- --quick

install: setup
	@scripts/build-install

package: setup
	@scripts/package

fmt:
	@cargo fmt --all

lint: setup
	@$(private) && scripts/lint

fuzz:
	@scripts/fuzz $(FUZZ_SECONDS)

clean:
	@scripts/clean
