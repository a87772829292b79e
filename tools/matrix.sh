#!/bin/bash
# The core's tests (all doctests, and what is not arithmetic) under the oldest and the newest Python, 3.11 and 3.13, where
# they are found and are not .venv's own; then the bridge's and the kernels' tests under JAX 0.11.2 and, in the same run, the
# least instruction set that XLA knows: another JAX rounds in another way, and so do other machines. Environments are kept
# in build/venvs and made from the same lock. At last, the editions of mlkernels export go through nbgrader and Otter-Grader.
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
python=.venv/bin/python
for minor in 11 13; do # at the same time: each is one process, and waits much
    [ "$minor" != "$own" ] || continue
    found=$(find_python "$minor")
    if [ -z "$found" ]; then
        echo "== Python 3.$minor: not found, left out"
        continue
    fi
    set_up "$minor" "$found" &
    others+=("$minor:$!")
done
for other in ${others[@]+"${others[@]}"}; do
    minor=${other%:*}
    wait "${other#*:}" || { failed+=("set-up of 3.$minor") && continue; }
    python=build/venvs/3.$minor/bin/python
    check "core on 3.$minor" "$python" -m pytest -q $parallel -m "$core and not numerics" \
        --ignore=tests/test_benchmarks.py --ignore=tests/test_sweep.py $(report "core-3.$minor") "$@"
done

# JAX 0.11.2 lies before the locked JAX on the path; everything else is the lock's.
overlay=$PWD/build/venvs/jax-0.11.2
tests=()
for test in tests/test_neural_tangents.py tests/test_kernels.py tests/test_layers.py tests/test_metantk.py \
    tests/test_benchmarks.py::test_{all_ways_to_the_analytic_metantk_agree,a_run_writes_its_numbers_with_provenance}; do
    [ ! -f "${test%%::*}" ] || tests+=("$test")
done
if [ -x "$python" ] && [ ${#tests[@]} -gt 0 ]; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [ "$(cat "$overlay/.installed" 2>/dev/null)" != "$version" ]; then
        rm -rf "$overlay"
        "$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$overlay" jax==0.11.2 jaxlib==0.11.2 &&
            echo "$version" >"$overlay/.installed" || failed+=("set-up of JAX 0.11.2")
    fi
    if [ -f "$overlay/.installed" ]; then
        flags=${XLA_FLAGS:-}
        if grep -qsm1 '^flags.*[[:space:]]sse4_2[[:space:]]' /proc/cpuinfo; then
            flags="$flags --xla_cpu_max_isa=SSE4_2"
        fi
        check "bridge and kernels on JAX 0.11.2, Python $version${flags:+,$flags}" \
            env PYTHONPATH="$overlay" XLA_FLAGS="$flags" "$python" -m pytest -q $parallel -m "$core" \
            $(report jax-0.11.2) "$@" "${tests[@]}"
    fi
fi

# nbgrader and Otter-Grader stay out of .venv: in an environment of their own, with the lock's versions of what both have.
grading=$PWD/build/venvs/grading
set_up_grading() {
    local start=$SECONDS wanted
    wanted=$(cat requirements.txt pyproject.toml | cksum)
    [ "$(cat "$grading/.installed" 2>/dev/null)" != "$wanted" ] || return 0
    rm -rf "$grading"
    .venv/bin/python -m venv "$grading"
    sed -e 's/ *\\$//' -e '/^ *--hash/d' requirements.txt >"$grading/constraints.txt"
    .venv/bin/python -c 'import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["grading"], sep="\n")' >"$grading/group.txt"
    "$grading/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile \
        -c "$grading/constraints.txt" -r "$grading/group.txt"
    echo "$wanted" >"$grading/.installed"
    echo "== graders: set up in $((SECONDS - start)) s"
}
if [ -x .venv/bin/python ] && [ -f tests/test_editions.py ]; then
    set_up_grading >build/venvs/grading.log 2>&1 & # as a condition it would not stop at its first error
    if wait $!; then
        tail -1 build/venvs/grading.log
        check "editions in both graders" env MLKERNELS_GRADERS="$grading/bin" .venv/bin/python -m pytest -q -n auto -m "$core" \
            $(report editions) "$@" tests/test_editions.py
    else
        cat build/venvs/grading.log
        failed+=("set-up of the graders")
    fi
fi

if [ ${#failed[@]} -gt 0 ]; then
    echo "== failed: ${failed[*]}"
    exit 1
fi
