#!/bin/sh
# Makes a virtual environment from the lock and installs this package into it: sh tools/setup.sh PYTHON FOLDER
# Called by make and tools/matrix.sh, in the repository's root. FOLDER/.installed is written last and holds the
# checksum of what was installed; FOLDER/.setting-up stands for a set-up at work, or one that was cut off.
set -eu

python=$1
venv=$2
stamp=$venv/.installed
busy=$venv/.setting-up

# The user's own Python and pip settings must not leak into it; an index or a proxy that pip knows of stays.
unset PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX PIP_ROOT PIP_CONSTRAINT PIP_REQUIRE_HASHES
export PIP_USER=0

stop() {
    echo "$*" >&2
    exit 1
}

wanted=$(cat requirements.txt pyproject.toml | cksum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && "$venv/bin/python" -c "" 2>/dev/null; then
    touch "$stamp"
    exit 0
fi

# A whole environment is brought up to date; one that is broken or was cut off is made anew.
alive() { kill -0 "$1" 2>/dev/null && ! grep -qs '^State:.Z' "/proc/$1/status"; } # containers may leave zombies
if [ -f "$busy" ] && alive "$(cat "$busy")"; then
    stop "$venv is being set up by process $(cat "$busy"): wait for it, or remove $venv if that is something else."
fi
if [ -f "$busy" ] || { [ -e "$venv" ] && ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; }; then
    echo "$venv is broken or half-made: making it anew."
    rm -rf "$venv"
fi
[ ! -e "$venv" ] || python=$venv/bin/python

found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
    stop "$python does not run: install Python 3.11, 3.12 or 3.13, or name one: make PYTHON=/path/to/python3.12 ..."
case $found in
    3.11 | 3.12 | 3.13) ;;
    *) stop "$python is Python $found, the course needs 3.11 to 3.13: name another (make PYTHON=python3.12 ...) or install one." ;;
esac
"$python" -c 'import venv, ensurepip' 2>/dev/null || [ -e "$venv" ] ||
    stop "$python lacks venv or pip: on Debian and Ubuntu \`apt install python3-venv\`, or name another: make PYTHON=/path/to/python3.12 ..."

again() {
    echo "The set-up of $venv stopped (see above). Are network, proxy and disk (1.2 GB) in order? The same command tries again." >&2
}
mkdir -p "$venv"
rm -f "$stamp"
echo $$ >"$busy"
trap 'rm -f "$busy"; again' EXIT
trap 'trap - EXIT; again; exit 130' INT TERM HUP # cut off: $busy stays
if [ "$python" = "$venv/bin/python" ]; then
    echo "Bringing $venv up to date"
else
    echo "Setting up $venv (about a minute, 1.2 GB)"
    "$python" -m venv "$venv"
fi
pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input "$@"; }
pip install --require-hashes --no-deps -r requirements.txt
pip install --no-deps --no-build-isolation -e .
echo "$wanted" >"$stamp"
trap - EXIT
rm -f "$busy"
