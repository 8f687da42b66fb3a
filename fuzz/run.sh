#!/bin/sh
# Fuzzes each parser for a bounded time: fuzz/run.sh [seconds for each target, 30] [target ...]
#
# Needs a C++ compiler and the stable Rust toolchain only. The instrumentation is the one that cargo-fuzz asks for,
# without its sanitizers, which are nightly's: the code has no `unsafe` of its own that they could watch. With
# cargo-fuzz and nightly Rust, `cargo +nightly fuzz run <target>` works as well.
#
# What crashes a target is left in fuzz/artifacts; what was learned, in fuzz/corpus. Neither is committed.
set -eu
cd "$(dirname "$0")"
seconds=${1:-30}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- $(cd fuzz_targets && ls | sed 's/\.rs$//')

host=$(rustc -vV | sed -n 's/^host: //p')
target_dir=${CARGO_TARGET_DIR:-target}
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
cargo build --quiet --release --target "$host" --target-dir "$target_dir"

failed=
for target in "$@"; do
    mkdir -p "corpus/$target" "artifacts/$target"
    seeds=
    [ -d "seeds/$target" ] && seeds="seeds/$target"
    log="$target_dir/fuzz-$target.log"
    if "$target_dir/$host/release/$target" "corpus/$target" $seeds -artifact_prefix="artifacts/$target/" \
        -max_total_time="$seconds" -max_len=65536 -rss_limit_mb=1024 -timeout=10 -verbosity=1 >"$log" 2>&1; then
        echo "$target: $(sed -n 's/^Done \([0-9]*\) runs.*/\1 runs, no fault/p' "$log")"
    else
        echo "$target: FAILED, see fuzz/artifacts/$target and $log" >&2
        tail -n 20 "$log" >&2
        failed="$failed $target"
    fi
done
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
