# What the other scripts share: paths, messages, the checks before a build, and the user that runs PostgreSQL. They
# source this file.
# shellcheck shell=bash

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# An absolute path, so that a build directory that was given as a relative path survives a change of directory.
TARGET_DIR=$(mkdir -p "${CARGO_TARGET_DIR:-$ROOT/target}" && cd "${CARGO_TARGET_DIR:-$ROOT/target}" && pwd)
export CARGO_TARGET_DIR=$TARGET_DIR
source "$ROOT/scripts/defaults"
# Not in the build directory, so that the harness finds the private servers wherever the build directory is.
SERVERS=$ROOT/$PRIVATE_SERVERS

say() { printf '==> %s\n' "$*" >&2; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# pinned NAME: the version of a dependency that Cargo.toml pins. `pinned pgrx` prints 0.18.1.
pinned() { sed -n "s/^$1 = .*\"=\([0-9.]*\)\".*/\1/p" "$ROOT/Cargo.toml"; }

# major_of PG_CONFIG: the major version of that PostgreSQL.
major_of() { "$1" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/'; }

# has_server PG_CONFIG: whether the installation is complete, with the server and its headers.
has_server() { [ -x "$1" ] && [ -x "$("$1" --bindir)/postgres" ] && has_headers "$1"; }

has_headers() { [ -f "$("$1" --includedir-server)/postgres.h" ]; }

# test_runner PG_CONFIG NAME: the path of one of PostgreSQL's test programs, such as regress/pg_regress.
test_runner() { echo "$(dirname "$("$1" --pgxs)")/../test/$2"; }

# can_test PG_CONFIG: whether the installation is complete and has PostgreSQL's test programs.
can_test() { has_server "$1" && [ -x "$(test_runner "$1" isolation/isolationtester)" ]; }

# installed_major: the newest supported version that is installed from Debian's packages, with all that tests need.
installed_major() {
    local major
    for major in $(tr , '\n' <<<"$ALL_MAJORS" | sort -nr); do
        ! can_test "$DEBIAN_SERVERS/$major/bin/pg_config" || { echo "$major" && return; }
    done
    return 1
}

# progress COMMAND...: runs a command that takes minutes. Instead of its output, shows the last line of it every 15
# seconds; if the command fails, shows all of it.
progress() {
    local log since=$SECONDS process status=0 tick
    log=$(mktemp)
    "$@" </dev/null >"$log" 2>&1 &
    process=$!
    # Do not leave the command behind.
    # shellcheck disable=SC2064
    trap "kill $process 2>/dev/null; rm -f '$log'; exit 130" INT TERM HUP
    for ((tick = 1; ; tick++)); do
        sleep 0.2
        kill -0 $process 2>/dev/null || break
        [ $((tick % 75)) = 0 ] || continue
        printf '    %3d s: %s\n' $((SECONDS - since)) "$(tail -n 1 "$log" | sed 's/\x1b\[[0-9;]*m//g' | cut -c 1-90)" >&2
    done
    wait $process || status=$?
    trap - INT TERM HUP
    [ $status = 0 ] || cat "$log" >&2
    rm -f "$log"
    return $status
}

# Whether libclang is installed: pgrx uses it to read the server's headers.
has_libclang() {
    local directory
    [ -z "${LIBCLANG_PATH:-}" ] || return 0
    for directory in '/usr/lib/llvm-*/lib' '/usr/lib/*-linux-gnu' /usr/lib /usr/lib64 /usr/local/lib; do
        ! compgen -G "$directory/libclang.so*" >/dev/null || return 0
        ! compgen -G "$directory/libclang-[0-9]*.so*" >/dev/null || return 0
    done
    have llvm-config
}

has_cargo_pgrx() { [ "$(cargo pgrx --version 2>/dev/null)" = "cargo-pgrx $(pinned pgrx)" ]; }

# Sets the variable pg_config to the program that PG_CONFIG names, or to the pg_config on the PATH.
find_pg_config() {
    pg_config=$(command -v "${PG_CONFIG:-pg_config}") ||
        die "cannot find ${PG_CONFIG:-pg_config}: set PG_CONFIG to the pg_config of your PostgreSQL, or run 'make setup'"
}

# Does the same, and checks what building the extension needs. If something is missing, one line says what to
# install.
prepare_build() {
    find_pg_config
    local setup="run 'make setup', or install" major
    major=$(major_of "$pg_config")
    have cargo || die "the Rust toolchain is missing: install rustup (https://rustup.rs)"
    has_cargo_pgrx || die "cargo-pgrx $(pinned pgrx) is missing: $setup it by 'cargo install --locked cargo-pgrx@$(pinned pgrx)'"
    has_headers "$pg_config" ||
        die "the server headers of PostgreSQL $major are missing: install its development package (Debian: postgresql-server-dev-$major)"
    has_libclang || die "libclang is missing: $setup it (Debian: libclang-dev)"
    have cc || die "a C compiler is missing: $setup one (Debian: gcc libc6-dev)"
    # cargo-pgrx and pgrx's build script read this variable. With it, `cargo pgrx init` is not necessary.
    export PGRX_PG_CONFIG_PATH=$pg_config
}

# Runs a command as the user that servers run as: PostgreSQL refuses root.
as_server_user() {
    if [ "$(id -u)" != 0 ]; then
        "$@"
        return
    fi
    local user
    for user in ${SERVER_USERS//,/ }; do
        if id "$user" >/dev/null 2>&1; then
            setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups -- "$@"
            return
        fi
    done
    die "root cannot run PostgreSQL, and none of these users exists: $SERVER_USERS"
}

# Makes the directory of the private servers. If the server's user cannot access this checkout, for example because
# it is in root's home directory, makes a link to a directory elsewhere.
make_servers_directory() {
    mkdir -p "$ROOT/target"
    if [ ! -e "$SERVERS" ]; then
        rm -f "$SERVERS" # a link whose directory is gone
        mkdir "$SERVERS"
        if ! as_server_user test -x "$SERVERS"; then
            local outside
            outside=$(mktemp -d /var/tmp/audit_chain-servers.XXXXXX)
            chmod 755 "$outside"
            rmdir "$SERVERS"
            ln -s "$outside" "$SERVERS"
        fi
    fi
}
