"""Notebooks as a reader meets them: JupyterLab in a browser. In 01 all cells run and a slider is moved by keyboard; in
02 the demo trains, is stopped and trains again.

Leaves pictures of it in build/browser, to be looked at.
"""

from __future__ import annotations

import contextlib
import re
import shutil

import _browser
import nbformat
import pytest

NAME, TRAINING = "01_derive_metantk", "02_maml_linear_rate"
PICTURES = _browser.ROOT / "build" / "browser"
pytestmark = pytest.mark.browser


@contextlib.contextmanager
def opened(home, name, minutes, keep=None):
    """A notebook in JupyterLab after Run All Cells: the page, and the list of its uncaught errors."""
    path = _browser.chromium()
    if path is None:
        pytest.skip(f"no browser found, looked for {', '.join(_browser.BROWSERS)}")
    notebooks = home / "notebooks"  # a copy: JupyterLab saves, and the course's notebooks carry no outputs
    shutil.copytree(_browser.ROOT / "notebooks", notebooks, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    if keep is not None:
        notebook = nbformat.read(notebooks / f"{name}.ipynb", as_version=4)
        notebook.cells = [cell for i, cell in enumerate(notebook.cells) if keep(i, cell)]
        nbformat.write(notebook, notebooks / f"{name}.ipynb")
    with _browser.jupyterlab(notebooks, home) as address, _browser.browser_page(path) as (page, errors):
        _browser.open_notebook(page, address, f"{name}.ipynb")
        _browser.run_all(page, minutes=minutes)
        PICTURES.mkdir(parents=True, exist_ok=True)
        yield page, errors


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Notebook 01, all of it."""
    with opened(tmp_path_factory.mktemp("lab"), NAME, minutes=20) as course:
        yield course


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """Notebook 02's parameters, settings and demo, without the minutes that the rest of it takes."""

    def keep(number, cell):
        return number <= 2 or "widget" in cell.metadata.get("tags", [])

    with opened(tmp_path_factory.mktemp("lab"), TRAINING, minutes=10, keep=keep) as training:
        yield training


def test_all_cells_run_without_an_error(course):
    page, errors = course
    page.locator(".jp-Notebook h1").scroll_into_view_if_needed()
    page.screenshot(path=PICTURES / "notebook01_top.png")
    assert not _browser.troubles(page)
    assert not errors
    pictures = page.locator(".jp-Notebook .jp-OutputArea img")
    assert pictures.count() >= 5
    assert pictures.evaluate_all("images => images.every(image => image.complete && image.naturalWidth > 0)")


def test_the_demo_answers_to_the_keyboard(course):
    page, errors = course
    demo = page.locator(".jp-CodeCell", has=page.locator(".widget-slider")).first
    outputs = demo.locator(".jp-Cell-outputWrapper")
    outputs.scroll_into_view_if_needed()
    image = demo.locator(".jp-OutputArea img")
    pictures = [image.get_attribute("src")]

    def changed():
        """The picture, once it is another than the last one."""
        other = "([cell, last]) => (cell.querySelector('.jp-OutputArea img')?.src ?? last) !== last"
        page.wait_for_function(other, arg=[demo.element_handle(), pictures[-1]], timeout=60_000)
        pictures.append(image.get_attribute("src"))
        assert len(image.get_attribute("alt")) > 20
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
        return pictures[-1]

    for label, key in (("inner steps", "ArrowRight"), ("inner steps", "ArrowLeft"), ("width", "ArrowLeft")):
        slider = demo.locator(".widget-slider", has_text=label).locator("[role=slider]")
        slider.focus()
        page.keyboard.press(key)
        changed()
        assert slider.evaluate("slider => slider === document.activeElement"), "the slider has lost the keyboard"
    assert pictures[2] == pictures[0] != pictures[1], "back where it was, the picture is the same"
    demo.get_by_role("button", name="ANIL").click()
    changed()
    assert "ANIL" in image.get_attribute("alt")
    demo.get_by_role("button", name="Reset").click()
    assert changed() == pictures[0]
    assert "MAML" in image.get_attribute("alt")
    outputs.screenshot(path=PICTURES / "notebook01_demo.png")
    assert not _browser.troubles(page)
    assert not errors


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
    page.wait_for_function("button => button.disabled", arg=stop.element_handle())
    assert status.text_content().startswith("stopped")
    assert train.is_enabled()
    assert not _browser.troubles(page)
    assert not errors
