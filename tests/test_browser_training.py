"""Notebook 02's demo as a reader meets it: in a browser it trains, is stopped, and trains again.

Playwright allows one browser at a time, so this is a file of its own beside test_browser.py.
"""

from __future__ import annotations

import re

import _browser
import pytest
from _browser import PICTURES
from playwright.sync_api import expect

TRAINING = "02_maml_linear_rate"
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """Notebook 02's parameters, settings and demo, without the minutes that the rest of it takes."""

    def keep(number, cell):
        begins = cell.cell_type == "code" and re.search(r"^preset: |^import jax$|presets\.choose\(", cell.source, re.M)
        return number == 0 or begins or "widget" in cell.metadata.get("tags", [])

    with _browser.opened(tmp_path_factory.mktemp("lab"), TRAINING, minutes=10, keep=keep) as training:
        yield training


def test_the_demo_trains_and_stops(training):
    page, errors = training
    demo = page.locator(".jp-CodeCell", has=page.locator(".widget-slider")).first
    outputs, image = demo.locator(".jp-Cell-outputWrapper"), demo.locator(".jp-OutputArea img")
    train, stop = (demo.get_by_role("button", name=name) for name in ("Train", "Stop"))
    status = demo.locator("[role=status]")
    outputs.scroll_into_view_if_needed()
    prediction = image.get_attribute("src")
    assert train.is_enabled()
    assert stop.is_disabled()

    train.click()  # the whole run, at the width that it begins with
    status.wait_for(timeout=240_000)
    page.wait_for_function("button => !button.disabled", arg=train.element_handle(), timeout=240_000)
    said, trained = status.text_content(), image.get_attribute("src")
    assert re.search(r"\d", said)
    assert trained != prediction
    assert "Run: step" in image.get_attribute("alt")
    outputs.screenshot(path=PICTURES / "notebook02_demo.png")

    slider = demo.locator(".widget-slider", has_text="width").locator("[role=slider]")
    slider.focus()
    for _ in range(6):  # to the widest: a run that lasts
        page.keyboard.press("ArrowRight")
    page.wait_for_function("([cell, last]) => cell.querySelector('.jp-OutputArea img').src !== last",
                           arg=[demo.element_handle(), trained])  # fmt: skip
    assert status.count() == 0, "a moved control takes the last run off"
    train.click()
    page.wait_for_function("button => !button.disabled", arg=stop.element_handle())
    stop.click()
    expect(status).to_have_text(re.compile("^stopped"), timeout=240_000)  # the button is off a message earlier
    assert stop.is_disabled()
    assert train.is_enabled()
    assert not _browser.troubles(page)
    assert not errors
