#!/bin/bash
# The core's tests (all doctests, and what is not arithmetic) under the oldest and the newest Python, 3.11 and 3.13, where
# they are found and are not .venv's own, then the bridge's and the kernels' tests under JAX 0.11.2 on Python 3.12, then the
# kernels' arithmetic under the least instruction set that XLA knows. Environments are kept in build/venvs and made
# from the same lock.
# bash tools/matrix.sh [PYTEST ARGUMENT...]; JUnit reports go to $REPORTS if that is set.
set -euo pipefail
cd "$(dirname "$0")/.."

unset PYTHONPATH PYTHONHOME # set-up cares for pip
failed=()
core="not notebook and not browser and not slow"
parallel="-n auto --dist loadfile --no-loadscope-reorder" # as in the Makefile

# Prints the first interpreter of a minor version that really runs: a pyenv shim may be there and refuse.
find_python() {
    local candidate
    for candidate in "python3.$1" $(ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."$1".*/bin/python 2>/dev/null | sort -rV); do
        if [ "$("$candidate" -c 'import sys, venv, ensurepip; print(sys.version_info[1])' 2>/dev/null)" = "$1" ]; then
            echo "$candidate"
            return
        fi
    done
}

# check NAME COMMAND...: runs it, says how long it took, remembers whether it failed.
check() {
    local name=$1 start=$SECONDS
    shift
    echo "== $name: $*"
    if "$@"; then
        echo "== $name: passed in $((SECONDS - start)) s"
    else
        failed+=("$name")
        echo "== $name: FAILED after $((SECONDS - start)) s"
    fi
}

set_up() {
    local start=$SECONDS
    sh tools/setup.sh "$2" "build/venvs/3.$1" >"build/venvs/3.$1.log" 2>&1 || { cat "build/venvs/3.$1.log" && return 1; }
    echo "== Python 3.$1 ($2): set up in $((SECONDS - start)) s"
}

report() { [ -z "${REPORTS:-}" ] || echo "--junitxml=$REPORTS/$1.xml"; }

own=$(.venv/bin/python -c 'import sys; print(sys.version_info[1])' 2>/dev/null || true)
mkdir -p build/venvs
others=()
for minor in 11 12 13; do # at the same time: each is one process, and waits much
    [ "$minor" != "$own" ] || continue
    python=$(find_python "$minor")
    if [ -z "$python" ]; then
        echo "== Python 3.$minor: not found, left out"
        continue
    fi
    set_up "$minor" "$python" &
    others+=("$minor:$!")
done
for other in ${others[@]+"${others[@]}"}; do
    minor=${other%:*}
    wait "${other#*:}" || { failed+=("set-up of 3.$minor") && continue; }
    [ "$minor" != 12 ] || continue # 3.11 and 3.13 stand for what lies between; 3.12 is for JAX 0.11.2
    check "core on 3.$minor" "build/venvs/3.$minor/bin/python" -m pytest -q $parallel -m "$core and not numerics" --ignore=tests/test_benchmarks.py --ignore=tests/test_sweep.py \
        $(report "core-3.$minor") "$@"
done

# JAX 0.11.2 lies before the locked JAX on the path; everything else is the lock's.
python=build/venvs/3.12/bin/python
[ "$own" != 12 ] || python=.venv/bin/python
overlay=$PWD/build/venvs/3.12-jax-0.11.2
tests=()
for file in tests/test_neural_tangents.py tests/test_kernels.py tests/test_layers.py tests/test_metantk.py; do
    [ ! -f "$file" ] || tests+=("$file")
done
if [ -x "$python" ] && [ ${#tests[@]} -gt 0 ]; then
    if [ ! -f "$overlay/.installed" ]; then
        rm -rf "$overlay"
        "$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$overlay" jax==0.11.2 jaxlib==0.11.2 &&
            touch "$overlay/.installed" || failed+=("set-up of JAX 0.11.2")
    fi
    if [ -f "$overlay/.installed" ]; then
        check "bridge and kernels on JAX 0.11.2" env PYTHONPATH="$overlay" "$python" -m pytest -q $parallel -m "$core" --ignore=tests/test_benchmarks.py \
            $(report jax-0.11.2) "$@" "${tests[@]}"
    fi
fi

# XLA compiles for the machine that it runs on, and rounds as that machine's instructions do: fewer of them stand in for
# other machines, and another JAX rounds in another way, too.
arithmetic=()
for test in tests/test_kernels.py tests/test_layers.py tests/test_metantk.py tests/test_benchmarks.py::test_{all_ways_to_the_analytic_metantk_agree,a_run_writes_its_numbers_with_provenance}; do
    [ ! -f "${test%%::*}" ] || arithmetic+=("$test")
done
has() { grep -qsm1 "^flags.*[[:space:]]$1\([[:space:]]\|$\)" /proc/cpuinfo; }
most=
for set in AVX512:avx512f AVX2:avx2 SSE4_2:sse4_2; do
    isa=${set%:*}
    flags="${XLA_FLAGS:-} --xla_cpu_max_isa=$isa"
    python=.venv/bin/python
    if ! has "${set#*:}"; then
        echo "== $isa: this machine has no such instructions, left out"
    elif [ -z "$most" ]; then
        most=$isa
        echo "== $isa: the most that this machine has, and what make test compiles for, left out"
    elif [ "$isa" = AVX2 ]; then
        echo "== $isa: lies between $most and SSE4_2, left out"
    elif ! XLA_FLAGS=$flags "$python" -c 'import jax; jax.devices()' >/dev/null 2>&1; then # jaxlib stops at flags it does not know
        failed+=("$isa: this jaxlib does not know --xla_cpu_max_isa")
    elif [ ${#arithmetic[@]} -gt 0 ]; then
        check "arithmetic with $isa" env XLA_FLAGS="$flags" "$python" -m pytest -q $parallel -m "$core" $(report "isa-$isa") "$@" "${arithmetic[@]}"
    fi
done

if [ ${#failed[@]} -gt 0 ]; then
    echo "== failed: ${failed[*]}"
    exit 1
fi
