# Sourced by the other scripts: paths, messages, and who runs PostgreSQL.
# shellcheck shell=bash

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# A build directory given relative to the caller stays the same one when we change directories.
TARGET_DIR=$(mkdir -p "${CARGO_TARGET_DIR:-$ROOT/target}" && cd "${CARGO_TARGET_DIR:-$ROOT/target}" && pwd)
export CARGO_TARGET_DIR=$TARGET_DIR
# The private servers; not below the build directory, so that the harness finds them wherever that is.
SERVERS=$ROOT/target/servers

say() { printf '==> %s\n' "$*" >&2; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# The value of a pinned dependency in the root manifest: `pinned pgrx` prints 0.18.1.
pinned() { sed -n "s/^$1 = .*\"=\([0-9.]*\)\".*/\1/p" "$ROOT/Cargo.toml"; }

# The major version of the server that a pg_config belongs to.
major_of() { "$1" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/'; }

# Runs a command as the user that servers run as: PostgreSQL refuses root.
as_server_user() {
    if [ "$(id -u)" != 0 ]; then
        "$@"
    elif id postgres >/dev/null 2>&1; then
        setpriv --reuid postgres --regid "$(id -g postgres)" --clear-groups -- "$@"
    else
        setpriv --reuid nobody --regid "$(id -g nobody)" --clear-groups -- "$@"
    fi
}

# Makes the directory of the private servers. Where the server's user cannot get into this checkout (root's home is
# closed to others), it is a link to a directory outside.
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
