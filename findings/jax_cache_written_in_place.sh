#!/bin/sh
# jax 0.10.2 with jaxlib 0.10.2: the persistent cache of compiled programs, shared by two processes, has no lock and no
# rename. An entry's own file is opened and written in place, so a second process that asks for the same program at that
# moment reads half of it: "UserWarning: Error reading persistent compilation cache entry", and it compiles anew. What a
# process that is killed leaves half-written stays so: it is not replaced, and every later process warns and compiles.
# A good engineer would guess that a cache on disk, made to be shared, writes to a temporary file and renames it.
# Seen: audit events of one compilation: open of the entry for writing, no rename, no lock file; and the warning of a
# reader that comes when half of an entry is there, with the right result all the same; the half entries after it.
# sh findings/jax_cache_written_in_place.sh: passes while that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cd "$folder"
export JAX_COMPILATION_CACHE_DIR="$folder/cache" JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
cat >writer.py <<'PYTHON'
import os
import sys

events = []


def seen(event, arguments):
    if event in ("open", "os.rename") and os.environ["JAX_COMPILATION_CACHE_DIR"] in str(arguments[0]):
        writes = event == "os.rename" or (isinstance(arguments[1], str) and "w" in arguments[1])
        if writes:
            events.append((event, os.path.basename(str(arguments[0])).split("-")[0], arguments[1] if event == "open" else ""))


sys.addaudithook(seen)
import jax
import jax.numpy as jnp

print(jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((3, 3)))[0, 0])
entries = [event for event in events if event[1].startswith("jit")]
print(entries)
assert any(event[:1] == ("open",) for event in entries), events
assert not any(event[0] == "os.rename" or "lock" in event[1] for event in events), events
PYTHON
"$folder/venv/bin/python" writer.py >first
cat first
"$folder/venv/bin/python" - <<'PYTHON'
import os
from pathlib import Path

for entry in Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).glob("*-cache"):  # as they are in the middle of being written
    whole = entry.read_bytes()
    entry.write_bytes(whole[: len(whole) // 2])
PYTHON
ls -l cache | awk '{print $5, $9}' | grep -- -cache >halves
"$folder/venv/bin/python" -c "import jax, jax.numpy as jnp
print(jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((3, 3)))[0, 0])" >second 2>warnings
grep -m1 "Error reading persistent compilation cache entry" warnings
[ "$(head -1 first)" = "$(head -1 second)" ]
ls -l cache | awk '{print $5, $9}' | grep -- -cache >later
cmp halves later # none of them has been replaced
echo "still so"
