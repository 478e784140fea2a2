#!/usr/bin/env bash
# Raises the memory that macOS lets the GPU wire down, so that models which nearly fill it run at full speed.
set -eu

NAME=${0##*/}
KEY=iogpu.wired_limit_mb

usage() {
    cat <<END
Usage: bash $NAME [--mb N] [--reset] [--dry-run]

MLX wires the memory of a model down for the GPU. macOS allows about three quarters of all for that; this raises it to
all but a fifth, or all but 8 GiB where that is less. It is a setting of the running system: a restart of the Mac undoes
it. Needs macOS 15 or later on Apple silicon, and an administrator's password.

  --mb N      N MiB instead, at most all but 2 GiB
  --reset     what macOS itself would choose
  --dry-run   only say what would be done
END
}

fail() {
    echo "$NAME: $*" >&2
    exit 1
}

# Most MiB that can be wired down: a fifth is left for everything else, but at least 2 GiB and at most 8.
limit_for() {
    local total_mb=$1 rest_mb
    rest_mb=$((total_mb / 5))
    if [ "$rest_mb" -lt 2048 ]; then rest_mb=2048; fi
    if [ "$rest_mb" -gt 8192 ]; then rest_mb=8192; fi
    echo $((total_mb - rest_mb))
}

shown() {
    if [ "$1" = 0 ]; then echo "0 (macOS chooses)"; else echo "$1 MiB"; fi
}

is_number() {
    case $1 in
    '' | *[!0-9]*) return 1 ;;
    esac
    [ "${#1}" -le 9 ]
}

dry_run=no
reset=no
wanted=

while [ $# -gt 0 ]; do
    case $1 in
    --dry-run) dry_run=yes ;;
    --reset) reset=yes ;;
    --mb)
        [ $# -ge 2 ] || fail "--mb needs a number"
        wanted=$2
        is_number "$wanted" || fail "--mb: '$wanted' is not a number of MiB"
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) fail "there is no $1 (see --help)" ;;
    esac
    shift
done
[ "$reset" = no ] || [ -z "$wanted" ] || fail "--reset and --mb exclude each other"

system=$(uname -s)
[ "$system" = Darwin ] || fail "this is $system; there is such a limit on macOS only"
[ "$(uname -m)" = arm64 ] || fail "this Mac has no Apple silicon, which MLX needs"
version=$(sw_vers -productVersion)
[ "${version%%.*}" -ge 15 ] || fail "this is macOS $version; the limit can be set from macOS 15 on"

current=$(sysctl -n "$KEY" 2>/dev/null) || fail "this system does not know $KEY"
total_mb=$(($(sysctl -n hw.memsize) / 1048576))
if [ "$reset" = yes ]; then
    wanted=0
elif [ -z "$wanted" ]; then
    wanted=$(limit_for "$total_mb")
else
    wanted=$((10#$wanted))
    [ "$wanted" -gt 0 ] || fail "--mb 0 is what --reset does"
    [ "$wanted" -le $((total_mb - 2048)) ] || fail "--mb $wanted leaves the system less than 2 GiB of $total_mb MiB"
fi

echo "Memory: $total_mb MiB. Wired limit: $(shown "$current"), wanted: $(shown "$wanted")."
if [ "$current" = "$wanted" ]; then
    echo "Nothing to do."
    exit 0
fi

set -- sysctl "$KEY=$wanted"
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "only an administrator can do that, and there is no sudo"
    set -- sudo "$@"
fi
if [ "$dry_run" = yes ]; then
    echo "Would run: $*"
    exit 0
fi
echo "Running: $*"
"$@" >/dev/null || fail "the limit was not set: it takes an administrator's password"
[ "$(sysctl -n "$KEY")" = "$wanted" ] || fail "the limit is still $(shown "$(sysctl -n "$KEY")")"
echo "Done, until the next restart of this Mac. Restart the server, so that it measures anew what is free."
