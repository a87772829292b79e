"""What a careless user gets: one line that says what was expected, what came and what to do."""

from __future__ import annotations

import pytest

from mlkernels.errors import InputError


def assert_refused(call, said: str = "") -> None:
    """`call()` is refused by one line of these words (`InputError`), and not by an error of JAX or NumPy."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert len(message) < 500
    assert ": expected " in message
    assert ", got " in message
    assert "; " in message
