"""Presets: what is chosen, what may be overridden, what is recorded."""

from __future__ import annotations

import copy
import json
import math
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlkernels.errors import InputError
from mlkernels.presets import CONFIG_MIME, PRESETS, choose, to_json

SIZES = {
    "quick": {"widths": (64, 256), "rate": 0.1, "steps": math.inf, "name": "a", "path": None},
    "class": {"widths": (64, 1024), "rate": 0.1, "steps": 10, "name": "b", "path": None},
    "full": {"widths": (64, 4096), "rate": 0.1, "steps": 100, "name": "c", "path": None},
}


def test_the_preset_and_its_overrides():
    settings = choose("class", SIZES, seed=3, notebook="01", rate=0.5, widths=None)
    assert (settings.preset, settings.seed, settings.notebook) == ("class", 3, "01")
    assert (settings.widths, settings.rate, settings["steps"], len(settings)) == ((64, 1024), 0.5, 10, 5)
    assert settings.overridden == ("rate",)
    assert "rate" in settings


def test_key_is_the_seeds():
    key = choose("quick", SIZES, seed=7).key()
    assert jax.random.key_data(key).tolist() == jax.random.key_data(jax.random.key(7)).tolist()


def test_settings_do_not_change():
    sizes = copy.deepcopy(SIZES)
    settings = choose("quick", sizes)
    with pytest.raises(AttributeError):
        settings.rate = 1.0
    with pytest.raises(TypeError):
        settings["rate"] = 1.0
    with pytest.raises(TypeError, match="do not change"):
        settings.chosen["rate"] = 1.0
    sizes["quick"]["rate"] = 9.0
    assert settings.rate == 0.1
    assert copy.deepcopy(settings) == pickle.loads(pickle.dumps(settings)) == settings


def test_an_unknown_setting_lists_what_exists():
    with pytest.raises(AttributeError, match="there are: widths, rate, steps, name, path"):
        choose("quick", SIZES).depth  # noqa: B018
    assert not hasattr(choose("quick", SIZES), "depth")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: choose("slow", SIZES), "preset: expected one of quick, class, full, got 'slow'"),
        (lambda: choose("quick", {"quick": {}}), "presets: expected quick, class, full, got quick"),
        (lambda: choose("quick", {**SIZES, "full": {"rate": 1}}), "preset full: .* name, path, steps, widths"),
        (lambda: choose("quick", SIZES, depth=3), "override: expected one of widths, .* got depth"),
        (lambda: choose("quick", SIZES, depth=None), "got depth"),
        (lambda: choose("quick", SIZES, rate="0.1"), "rate: expected a value like 0.1, got '0.1'"),
        (lambda: choose("quick", SIZES, rate=True), "rate: expected"),
        (lambda: choose("quick", SIZES, widths=64), "widths: expected"),
        (lambda: choose("quick", SIZES, seed=-1), "seed: expected"),
        (lambda: choose("quick", SIZES, seed=1.5), "seed: expected"),
        (lambda: choose("quick", {p: {"seed": 1, "keys": 2} for p in PRESETS}), "got keys, seed"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_display_shows_a_table_and_records_the_configuration():
    bundle = choose("quick", SIZES, notebook="01_x", path="a<b")._repr_mimebundle_()
    assert bundle["text/plain"].splitlines()[0] == "preset quick"
    assert "path    a<b  (not the preset's)" in bundle["text/plain"]
    assert "a&lt;b" in bundle["text/html"]
    config = json.loads(json.dumps(bundle[CONFIG_MIME], allow_nan=False))
    assert config == {
        "notebook": "01_x",
        "preset": "quick",
        "seed": 0,
        "settings": {"widths": [64, 256], "rate": 0.1, "steps": "inf", "name": "a", "path": "a<b"},
        "overridden": ["path"],
    }


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
    max_leaves=8,
)


@given(nested)
def test_to_json_is_strict_json(value):
    json.dumps(to_json(value), allow_nan=False)


def test_to_json_reads_arrays():
    assert to_json({"a": np.float32(0.5), "b": jax.numpy.arange(2), "c": np.array([np.nan, 1.0])}) == {
        "a": 0.5,
        "b": [0, 1],
        "c": ["nan", 1.0],
    }
    assert to_json(np.bool_(True)) is True


def test_import_is_light():
    heavy = ("IPython", "jax", "numpy", "matplotlib")
    code = f"import sys, mlkernels.presets; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
