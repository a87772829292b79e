"""Every demo answers at both ends of every control, with finite numbers, and is pure."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mlkernels.demos import derive_metantk, start_here

DEMOS = [start_here.DEMO, derive_metantk.DEMO]
ENDS = [pytest.param(demo, values, id=f"{demo.name}-{i}") for demo in DEMOS for i, values in enumerate(demo.ends())]


@pytest.mark.parametrize(("demo", "values"), ENDS)
def test_every_end_of_every_control_gives_finite_numbers_and_an_alt_text(demo, values):
    numbers = demo.compute(**values)
    for field in dataclasses.fields(numbers):
        value = getattr(numbers, field.name)
        if isinstance(value, np.ndarray):
            assert np.isfinite(value).all(), field.name
    assert len(demo.alt(**values)) > 40


@pytest.mark.parametrize("demo", DEMOS, ids=lambda demo: demo.name)
def test_same_settings_same_picture_on_a_new_and_on_a_used_stage(demo):
    used = demo.build()
    demo.frame(used, **demo.twin[0])
    assert demo.frame(used).png == demo.frame(demo.build()).png


def test_an_inner_rate_that_diverges_is_refused():
    from mlkernels.errors import InputError

    with pytest.raises(InputError, match="below 2 / lambda_max"):
        derive_metantk.numbers(64, 10, 1.0, 0.0, "MAML")
