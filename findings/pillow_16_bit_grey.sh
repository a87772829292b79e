#!/bin/sh
# Pillow 13.0.0 reads a 16-bit grey PNG as numbers up to 65535, and convert("L") or convert("RGB") cuts them off at 255
# instead of scaling them: nearly every pixel becomes white, and no warning says so.
# A good engineer would guess that white stays white and half grey half grey, as with any 8-bit picture.
# Seen: a ramp from 0 to 65535, whose mean is half of white (127.5 of 255), has a mean of about 254 after convert.
# sh findings/pillow_16_bit_grey.sh: passes while that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pillow==13.0.0 numpy==2.4.6
cd "$folder"
cat >look.py <<'PYTHON'
import warnings

import numpy as np
from PIL import Image

warnings.simplefilter("error")
ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
Image.fromarray(ramp).save("ramp.png")
with Image.open("ramp.png") as picture:
    means = {mode: float(np.asarray(picture.convert(mode)).mean()) for mode in ("L", "RGB")}
    print("mode", picture.mode, "means", means, "of the ramp itself", ramp.mean() / 257)
assert abs(ramp.mean() / 257 - 127.5) < 0.1
if not all(mean > 250 for mean in means.values()):
    raise SystemExit("changed: 16 bits are not cut off any more")
print("as found")
PYTHON
venv/bin/python look.py
