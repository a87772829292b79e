#!/bin/sh
# optax 0.2.8: the updates of adam and adamw raise TypePromotionError where jax_numpy_dtype_promotion is "strict", in any
# precision: their bias correction takes a float to the power of an int32 count.
# A good engineer would guess that a library of the same family runs under the strict setting, as its sgd does.
# Seen: sgd works; adam does not, but with jax.numpy_dtype_promotion("standard") around it it does.
# sh findings/optax_strict_promotion.sh: passes while that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 optax==0.2.8
cd "$folder"
cat >update.py <<'PYTHON'
import jax
import jax.numpy as jnp
import optax

jax.config.update("jax_numpy_dtype_promotion", "strict")
params = {"w": jnp.ones(3)}


def update(name):
    optimizer = getattr(optax, name)(0.1)
    return optimizer.update(params, optimizer.init(params), params)


for name in ("sgd", "adam", "adamw"):
    try:
        update(name)
        print(f"{name}: works")
    except jax.dtypes.TypePromotionError as error:
        print(f"{name}: {type(error).__name__}: {str(error)[:60]}")
with jax.numpy_dtype_promotion("standard"):
    update("adam")
print("adam in a standard context: works")
PYTHON
JAX_PLATFORMS=cpu venv/bin/python update.py | tee said.txt
grep -q "^sgd: works" said.txt && grep -q "standard context: works" said.txt || { echo "changed: sgd or the context fails"; exit 1; }
grep -q "^adam: TypePromotionError" said.txt && grep -q "^adamw: TypePromotionError" said.txt || { echo "changed: adam works"; exit 1; }
echo "as found: adam does not run under strict promotion"
