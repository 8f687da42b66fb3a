# What the scripts share that unpack packages of Debian without installing them. They source this file after common.sh.
# The directory $work is theirs.
# shellcheck shell=bash disable=SC2154

# The Debian release that has each major version of PostgreSQL.
# shellcheck disable=SC2034 # those who source this file use it
declare -A DEBIAN_SUITES=([15]=bookworm [17]=trixie [18]=forky)
DEBIAN_MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

# prepare_apt SUITE: reads the package lists of a release for private_apt.
prepare_apt() {
    local keyring
    have apt-get || die "packages of Debian cannot be unpacked without apt-get: set PG_CONFIG to an installation of your own"
    keyring=$(compgen -G '/usr/share/keyrings/debian-archive-keyring.[gp][gp][gp]' | head -n 1) ||
        die "Debian's keys are missing: install debian-archive-keyring"
    say "reading the package list of Debian $1"
    mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/none"
    : >"$work/status" # nothing is installed, so apt-get names all libraries
    echo "deb [arch=$(dpkg --print-architecture) target=Packages signed-by=$keyring] $DEBIAN_MIRROR $1 main" \
        >"$work/sources.list"
    private_apt update
}

# Runs apt-get with lists, packages and sources of its own, so that it changes nothing on this machine. apt-get checks
# the signature of the release, and by it the checksum of each package.
private_apt() {
    apt-get -qq -o Dir::State="$work/state" -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" \
        -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts="$work/none" \
        -o Dir::Etc::preferences="$work/none/no" -o Dir::Etc::preferencesparts="$work/none" \
        -o APT::Sandbox::User= -o APT::Install-Recommends=false -o APT::Update::Error-Mode=any \
        -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false -o Acquire::Retries=3 "$@"
}
