"""Every notebook's demos as a reader meets them: JupyterLab in a browser, moved from end to end by keyboard.

Of each notebook only the demos run here, and the cells that they need: what all the other cells do, test_notebooks.py
sees in a kernel alone. `-m once` runs all cells of all of them in JupyterLab. Pictures are left in build/browser, to be
looked at.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import _browser
import nbformat
import pytest
from _browser import PICTURES, settled
from _notebooks import needed, read
from playwright.sync_api import expect

NOTEBOOKS = sorted((_browser.ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
DEMO = ".mlk-demo"
pytestmark = pytest.mark.browser


def its_demos(path: Path) -> nbformat.NotebookNode:
    """A notebook without what its demos do not need; a demo of what the notebook computes shows the package's own."""
    notebook = read(path)
    for cell in notebook.cells:
        cell.source = re.sub(r"^recorded = .*\nwidgets.explore\(recorded\)", SHORT, cell.source)
    head = re.compile(r"^preset: |presets\.choose\(", re.M)
    wanted = lambda cell: "widget" in cell.metadata.get("tags", []) or head.search(cell.source)
    notebook.cells = [notebook.cells[0], *needed(notebook, wanted)]
    return notebook


SHORT = "widgets.explore(search_replay.DEMO)"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab's address and a browser; all notebooks in `whole`, and their demos alone in `demos`."""
    path = _browser.chromium()
    if path is None:
        pytest.skip(f"no browser found, looked for {', '.join(_browser.BROWSERS)}")
    home = tmp_path_factory.mktemp("lab")
    (home / "notebooks" / "whole").mkdir(parents=True)  # copies: JupyterLab saves, and the course's carry no outputs
    (home / "notebooks" / "demos").mkdir()
    for notebook in NOTEBOOKS:
        shutil.copy(notebook, home / "notebooks" / "whole")
        nbformat.write(its_demos(notebook), home / "notebooks" / "demos" / notebook.name)
    PICTURES.mkdir(parents=True, exist_ok=True)
    with _browser.jupyterlab(home / "notebooks", home) as address, _browser.started(path) as browser:
        yield address, browser


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_demos_answer_at_both_ends_of_each_control(lab, path):
    with _browser.opened(*lab, f"demos/{path.name}", minutes=10) as (page, errors):
        check_demos(page, path)
        assert not _browser.troubles(page)
        assert not errors


@pytest.mark.once
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_all_cells_run_in_jupyterlab(lab, path):
    with _browser.opened(*lab, f"whole/{path.name}", minutes=20) as (page, errors):
        page.locator(".jp-Notebook h1").scroll_into_view_if_needed()
        page.screenshot(path=PICTURES / f"{path.stem}_top.png")
        assert not _browser.troubles(page)
        pictures = page.locator(".jp-Notebook .jp-OutputArea img:not(.mlk-still img)")
        assert pictures.count() >= 3
        assert pictures.evaluate_all("images => images.every(image => image.complete && image.naturalWidth > 0)")
        check_demos(page, path)
        assert not _browser.troubles(page)
        assert not errors


def check_demos(page, path):
    """Move every control of every demo on a page."""
    shown = page.locator(DEMO)
    expected = sum("widget" in cell.metadata.get("tags", []) for cell in read(path).cells)
    assert shown.count() == expected
    for number in range(expected):
        check_demo(page, shown.nth(number), f"{path.stem}_{number + 1}")


def check_demo(page, demo, name):
    """Each slider to both ends, each choice, and back; then its run, if it has one."""
    demo.scroll_into_view_if_needed()
    settled(page)
    picture = demo.locator(".mlk-picture")
    expect(picture).to_have_attribute("src", re.compile("^data:image/png"))
    demo.screenshot(path=PICTURES / f"{name}.png")
    for slider in demo.locator("input[type=range]").all():
        seen = set()
        for key in ("Home", "End"):
            slider.press(key)
            seen.add(answer(page, demo))
            label = slider.evaluate("slider => slider.labels[0].textContent")
            demo.screenshot(path=PICTURES / f"{name}_{re.sub(r'[^a-z0-9]+', '_', label.lower())}_{key.lower()}.png")
            assert slider.evaluate("slider => slider === document.activeElement"), "it has lost the keyboard"
            assert slider.get_attribute("aria-valuetext")
        print(name, label, len(seen))
        press(demo.locator(".mlk-reset"))
        settled(page)
    for fieldset in demo.locator("fieldset").all():
        for radio in fieldset.locator("label").all():
            radio.click()
            answer(page, demo)
        press(demo.locator(".mlk-reset"))
        settled(page)


def press(button):
    button.click()


def answer(page, demo):
    """The picture's address once the kernel has answered: a picture with its text, or a line that says why not."""
    settled(page)
    picture = demo.locator(".mlk-picture")
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
    refusal = demo.locator(".mlk-refusal")
    if refusal.is_visible():
        print("refused:", refusal.text_content())
        assert len(refusal.text_content()) > 20
    else:
        assert len(picture.get_attribute("alt")) > 20
    return picture.get_attribute("src")
