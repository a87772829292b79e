"""The bridge to neural-tangents: it works here, patches little, and fails in one clear line."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlkernels.kernels import neural_tangents_bridge as bridge


def test_status_is_ok_here():
    found = bridge.status()
    assert found["ok"], found["error"]
    assert found["tested"] == "0.10.2 to 0.12.0.1"


def test_kernels_prediction_and_linearisation_work(key):
    init, apply, kernel_fn = bridge.stax.serial(bridge.stax.Dense(512), bridge.stax.Relu(), bridge.stax.Dense(1))
    x = jax.random.normal(key, (5, 3))
    _, params = init(key, x.shape)
    ntk = kernel_fn(x, None, "ntk")
    predictor = bridge.nt.predict.gradient_descent_mse(ntk, jnp.ones((5, 1)))
    train = predictor(1.0, jnp.zeros((5, 1)), None)
    expected = (jnp.eye(5) - jax.scipy.linalg.expm(-ntk / 5)) @ jnp.ones((5, 1))
    np.testing.assert_allclose(train, expected, atol=1e-10)
    linear = bridge.nt.linearize(apply, params)
    np.testing.assert_allclose(linear(params, x), apply(params, x))
    assert bridge.nt.batch(kernel_fn, batch_size=0)(x, None, "nngp").shape == (5, 5)


def test_tensorflow_is_not_imported():
    code = "import sys, mlkernels.kernels.neural_tangents_bridge as b; b.stax; print('tensorflow' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_a_jax_that_breaks_the_bridge_gets_one_line_with_the_tested_range(monkeypatch):
    monkeypatch.setattr(bridge, "_MOVED", {"jax.core": {"Gone": "jax.nowhere"}})
    with pytest.raises(bridge.BridgeError, match=r"expected a JAX from 0\.10\.2 to 0\.12\.0\.1.*pip install") as raised:
        bridge._import()
    assert "\n" not in str(raised.value)
