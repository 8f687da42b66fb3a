# The developer's commands; the work is done by scripts/.
#
#   PG_CONFIG=…   the PostgreSQL to install into; the tests run a private copy of it
#   SERVER=16     the major version for test, regress, isolation, cluster, lint, bench and demo, in a private copy;
#                 by default, the newest that is installed
#   MINUTES=60    how long soak runs; SEED=… repeats the random choices of an earlier run
#   TESTS="a b"   only these tests, for regress, isolation and cluster
#   BINDIR=…      where install puts the program audit-chain; by default /usr/local/bin
#
# Targets that test call setup themselves. install and package only build: they never run a package manager. packages and
# test-packages run apt in directories of their own.

include scripts/defaults

SERVER ?=
BINDIR ?= /usr/local/bin
TESTS ?=
FUZZ_SECONDS ?= 60
MINUTES ?= 10
SEED ?=

# Makes the private copy on first use.
private = PG_CONFIG="$$(scripts/private-server $(SERVER))" && export PG_CONFIG
# Cargo builds only what has changed.
built = $(private) && scripts/build-install

.PHONY: help all setup demo test test-all regress regress-accept isolation isolation-accept cluster soak bench bench-quick \
	install package setup-packages packages test-packages pgxn fmt lint fuzz clean

help:
	@echo 'To see it work and to test it; these install what is missing on this machine (make setup):'
	@echo '  make demo          the demo: audit, tamper, detect'
	@echo '  make test          all tests on the newest installed PostgreSQL, most on others (only one: SERVER=16, PG_CONFIG=…)'
	@echo '  make test-all      all tests on PostgreSQL $(ALL_MAJORS)'
	@echo '  make regress       only the SQL tests (TESTS="capture guard"); regress-accept accepts their results'
	@echo '  make isolation     only the concurrency tests (TESTS=…); isolation-accept accepts their results'
	@echo '  make cluster       only the whole-server tests (TESTS=…)'
	@echo '  make soak          10 minutes of random load, maintenance, restarts and crashes, and the reckoning (MINUTES=60)'
	@echo '  make lint          rustfmt, clippy, and the scripts'
	@echo '  make bench         the side-by-side benchmarks (bench-quick: a short run)'
	@echo '  make setup         only install what building and testing need: PostgreSQL, libclang, cargo-pgrx'
	@echo 'To install it; these only build, and say what is missing:'
	@echo '  make install       build, and install into the server of PG_CONFIG (default: the pg_config on the PATH)'
	@echo '  make package       build an archive for the server of PG_CONFIG'
	@echo 'To release it; these need root, and what make setup-packages installs:'
	@echo '  make packages      .deb, .rpm, the image for CloudNativePG and the zip for PGXN, in target/packages'
	@echo '  make test-packages installs the packages in clean systems and uses them'
	@echo '  make pgxn          only the zip for PGXN; needs git and Python'
	@echo 'Others: make fmt, make fuzz, make clean'

setup:
	@scripts/setup

demo: setup
	@scripts/demo $(SERVER)

test: setup
	@scripts/test $(SERVER)

test-all: setup
	@scripts/test all

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

soak: setup
	@$(built) && cargo run --package soak -- --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

bench: setup
	@$(built) && cargo run --release --package bench -- --output docs/performance.md

bench-quick: setup
	@$(built) && cargo run --release --package bench -- --quick

install:
	@BINDIR="$(BINDIR)" scripts/build-install

package:
	@scripts/package

# What `pgxn install` calls before `make install`.
all: package

setup-packages:
	@scripts/setup-packages

packages:
	@scripts/packages

test-packages:
	@scripts/test-packages

pgxn:
	@scripts/pgxn

fmt:
	@cargo fmt --all

lint: setup
	@$(private) && scripts/lint

fuzz:
	@scripts/fuzz $(FUZZ_SECONDS)

clean:
	@scripts/clean
