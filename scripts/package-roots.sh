# What scripts/packages and scripts/test-packages share: directories with a minimal Debian, in which they run commands
# as root. They source this file after common.sh.
# shellcheck shell=bash

PACKAGES=$TARGET_DIR/packages
# With the repository of the PostgreSQL Global Development Group, these are other systems.
ROOTS=$TARGET_DIR/package-roots${PGDG:+-pgdg}
MIRROR=${MIRROR:-http://deb.debian.org/debian}
SUITES=${SUITES:-${PACKAGE_SUITES//,/ }}
# shellcheck disable=SC2034 # those who source this file use it
VERSION=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")

prepare_roots() {
    [ "$(id -u)" = 0 ] || die "root is needed, to make a directory with Debian and change into it"
    local program
    for program in debootstrap unshare git; do
        have "$program" || die "$program is missing: run 'make setup-packages'"
    done
    mkdir -p "$PACKAGES" "$ROOTS"
}

# make_root SUITE NAME: makes the directory ROOTS/SUITE.NAME, a minimal Debian. An old one is removed.
make_root() {
    local suite=$1 root=$ROOTS/$1.$2 base=$ROOTS/$1.base
    if [ ! -d "$base" ]; then
        say "debootstrap $suite"
        rm -rf "$base.new"
        # The script of sid serves all later releases that this debootstrap does not know.
        debootstrap --variant=minbase "$suite" "$base.new" "$MIRROR" sid >"$base.log" 2>&1 ||
            die "debootstrap failed: $base.log"
        # Proxies and other settings of this machine. No service starts, and no package makes a cluster.
        apt-config dump Acquire >"$base.new/etc/apt/apt.conf.d/90host"
        echo 'APT::Install-Recommends "false";' >>"$base.new/etc/apt/apt.conf.d/90host"
        echo force-unsafe-io >"$base.new/etc/dpkg/dpkg.cfg.d/90unsafe-io"
        printf '#!/bin/sh\nexit 101\n' >"$base.new/usr/sbin/policy-rc.d"
        chmod 755 "$base.new/usr/sbin/policy-rc.d"
        mkdir -p "$base.new/etc/postgresql-common"
        echo 'create_main_cluster = false' >"$base.new/etc/postgresql-common/createcluster.conf"
        if [ -n "${PGDG:-}" ]; then
            in_root "$base.new" apt-get update -qq
            install_in "$base.new" ca-certificates postgresql-common
            # The script is in the package, with the key.
            in_root "$base.new" /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y >>"$base.log" 2>&1 ||
                die "the repository of PostgreSQL cannot be used: $base.log"
        fi
        mv "$base.new" "$base"
    fi
    rm -rf "$root"
    cp -a --reflink=auto "$base" "$root"
    in_root "$root" apt-get update -qq
}

# install_in ROOT PACKAGE...: installs packages by apt.
install_in() {
    local root=$1
    shift
    in_root "$root" apt-get install -y -qq "$@" >"$root.log" 2>&1 || die "apt-get install failed: $root.log"
}

# in_root ROOT [--bind FROM TO]... [--env NAME=VALUE]... COMMAND...: runs a command as root in that directory, in its own
# namespaces: mounts and processes end with it.
in_root() {
    local root=$1 binds=() env=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
        DEBIAN_FRONTEND=noninteractive)
    shift
    while true; do
        case $1 in
            --bind) binds+=("$2" "$3") && shift 3 ;;
            --env) env+=("$2") && shift 2 ;;
            *) break ;;
        esac
    done
    ! [ -e /etc/resolv.conf ] || cp -L /etc/resolv.conf "$root/etc/resolv.conf"
    # shellcheck disable=SC2016 # the inner shell expands
    unshare --mount --pid --fork --kill-child bash -c '
        set -e
        root=$1 binds=$2
        shift 2
        mount --bind "$root" "$root" # buildah remounts /, which must be a mount
        mount -t proc proc "$root/proc"
        mkdir -p "$root/dev/shm" "$root/dev/pts"
        mount -t tmpfs tmpfs "$root/dev/shm"
        mount -t devpts devpts "$root/dev/pts"
        for ((; binds > 0; binds -= 2)); do
            mkdir -p "$root$2"
            mount --bind "$1" "$root$2"
            shift 2
        done
        exec chroot "$root" env -i "$@"' in_root "$root" "${#binds[@]}" "${binds[@]}" "${env[@]}" "$@"
}
