"""Presets: what is chosen, what may be overridden, what is recorded."""

from __future__ import annotations

import copy
import json
import math
import pickle
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlkernels.course.presets import CONFIG_MIME, PRESETS, choose, to_json
from mlkernels.errors import InputError

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
    code = f"import sys, mlkernels.course.presets; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


RANGED = {p: {"seeds": 3, "rate": 0.1} for p in PRESETS}
RANGES = {"seeds": (2, 8), "rate": (0.0, 0.5), "steps": (1, None), "data": ["auto", "glyphs"], "folder": "folder"}


def ranged(**values):
    return choose("quick", RANGED, ranges=RANGES, **({"steps": 1, "data": "auto", "folder": None} | values))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("seeds", 1, "seeds: expected a whole number from 2 to 8, got 1"),
        ("seeds", 9, "seeds: expected a whole number from 2 to 8, got 9"),
        ("seeds", 2.5, "seeds: expected a whole number from 2 to 8, got 2.5"),
        ("rate", -1e-9, "rate: expected a number from 0.0 to 0.5, got -1e-09"),
        ("rate", 0.51, "rate: expected a number from 0.0 to 0.5, got 0.51"),
        ("rate", math.inf, "rate: expected a number from 0.0 to 0.5, got inf"),
        ("rate", math.nan, "rate: expected a number from 0.0 to 0.5, got nan"),
        ("steps", 0, "steps: expected a whole number of at least 1, got 0"),
        ("steps", True, "steps: expected a whole number of at least 1, got True"),
        ("steps", "1", "steps: expected a whole number of at least 1, got '1'"),
        ("data", "omniglot", "data: expected auto or glyphs, got 'omniglot'"),
        ("folder", "", "folder: expected the path of a folder, got ''"),
        ("folder", "~nobody_of_this_name/x", "of no known user"),
        ("folder", __file__, "expected a folder, got a file"),
        ("seed", -1, "seed: expected a whole number from 0 to 2147483647, got -1"),
        ("seed", 2**31, "seed: expected a whole number from 0 to 2147483647, got 2147483648"),
    ],
)
def test_a_value_outside_its_range_is_refused(name, value, said):
    with pytest.raises(InputError, match=re.escape(said)):
        ranged(**{name: value})


def test_values_at_the_ends_of_their_ranges_are_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    low = ranged(seeds=2, rate=0.0, seed=0)
    high = ranged(seeds=8, rate=0.5, seed=2**31 - 1, steps=10**9, data="glyphs", folder="~/new")
    assert (low.seeds, low.rate, low.steps, low.data, low.folder) == (2, 0.0, 1, "auto", None)
    assert (high.seeds, high.rate, high.steps, high.data) == (8, 0.5, 10**9, "glyphs")
    assert high.folder == str(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert high.overridden == ("seeds", "rate")


def test_a_presets_own_value_is_held_to_the_range_too():
    with pytest.raises(InputError, match="seeds: expected a whole number of at least 4, got 3"):
        choose("quick", RANGED, ranges={"seeds": (4, None)})


@pytest.mark.parametrize(
    ("ranges", "given", "said"),
    [
        ({"steps": (1, None)}, {}, "ranges: expected parameters that are given, got steps; add steps=steps"),
        ({}, {"steps": 1}, "override: expected one of seeds, rate, got steps"),
        ({"seeds": 2}, {}, "range of seeds: expected both ends"),
        ({"seeds": (2, 3, 4)}, {}, "range of seeds: expected both ends"),
        ({"seeds": "whole"}, {}, "range of seeds: expected both ends"),
        ({"key": (1, 2)}, {"key": 1}, "expected a name that Settings does not use, got key"),
    ],
)
def test_a_range_that_is_none_and_a_parameter_without_one_are_refused(ranges, given, said):
    with pytest.raises(InputError, match=re.escape(said)):
        choose("quick", RANGED, ranges=ranges, **given)
