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
from _notebooks import begins, needed, read
from playwright.sync_api import expect

NOTEBOOKS = sorted((_browser.ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
EXPECT = 240_000  # ms: a machine that does other things, too
expect.set_options(timeout=EXPECT)
pytestmark = pytest.mark.browser
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def its_demos(path: Path) -> nbformat.NotebookNode:
    """A notebook without what its demos do not need; for a demo of what it computes stands the package's own."""
    notebook = read(path)
    for cell in notebook.cells:
        cell.source = re.sub(
            r"^recorded = [^\n]*\n(widgets.explore)\(recorded\)", r"\1(search_replay.DEMO)", cell.source
        )
    kept = needed(notebook, lambda cell: begins(cell) or "widget" in cell.metadata.get("tags", []))
    notebook.cells = [notebook.cells[0], *kept]
    return notebook


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


@each_notebook
def test_the_demos_answer_at_both_ends_of_each_control(lab, path):
    with _browser.opened(*lab, f"demos/{path.name}", minutes=10) as (page, errors):
        check_demos(page, path, pictures=False)
        assert not _browser.troubles(page)
        assert not errors


@pytest.mark.once
@each_notebook
def test_all_cells_run_in_jupyterlab(lab, path):
    with _browser.opened(*lab, f"whole/{path.name}", minutes=60) as (page, errors):
        page.locator(".jp-Notebook h1").scroll_into_view_if_needed()
        expect(page.locator(".jp-Notebook h1")).to_be_in_viewport()
        settled(page)
        page.screenshot(path=PICTURES / f"{path.stem}_top.png")
        assert not _browser.troubles(page)
        images = page.locator(".jp-Notebook .jp-OutputArea img:not(.mlk-still img)")
        assert images.count() >= 3
        assert images.evaluate_all("images => images.every(image => image.complete && image.naturalWidth > 0)")
        check_demos(page, path)
        assert not _browser.troubles(page)
        assert not errors


def check_demos(page, path, pictures=True):
    """Move every control of every demo on a page; `pictures` keeps one of each end."""
    shown = page.locator(".mlk-demo")
    expected = sum("widget" in cell.metadata.get("tags", []) for cell in read(path).cells)
    assert shown.count() == expected
    for number in range(expected):
        check_demo(page, shown.nth(number), f"{path.stem}_{number + 1}", pictures)


def check_demo(page, demo, name, pictures):
    """Each slider to both ends and each choice, and back by Reset; then its run, if it has one."""
    demo.scroll_into_view_if_needed()
    expect(demo.locator(".mlk-picture")).to_have_attribute("src", re.compile("^data:image/png"))
    first = reset(page, demo)
    demo.screenshot(path=PICTURES / f"{name}.png")
    seen = {first}
    for slider in demo.locator("input[type=range]").all():
        label = re.sub(r"\W+", "_", slider.evaluate("slider => slider.labels[0].textContent"))
        for key in ("Home", "End"):
            slider.press(key)
            seen.add(answer(page, demo))
            if pictures:
                demo.screenshot(path=PICTURES / f"{name}_{label}_{key}.png")
            assert slider.evaluate("slider => slider === document.activeElement"), f"{label} has lost the keyboard"
            assert slider.get_attribute("aria-valuetext")
        assert reset(page, demo) == first, f"{label}: back where it was, the picture is the same"
    for choice in demo.locator("fieldset label").all():
        choice.click()
        seen.add(answer(page, demo))
    for select in demo.locator("select").all():
        select.press("End")
        seen.add(answer(page, demo))
    demo.screenshot(path=PICTURES / f"{name}_last_choices.png")
    assert reset(page, demo) == first
    assert len(seen) > 3, "nothing moves"
    if demo.locator(".mlk-run").count():
        check_run(page, demo, name)


def check_run(page, demo, name):
    """The widest network lasts, so it can be stopped; the first one goes to its end; a moved control takes it off."""
    run, status = demo.locator(".mlk-run"), demo.locator(".mlk-status")
    demo.get_by_label("width").press("End")
    answer(page, demo)
    run.click()
    expect(run).to_have_accessible_name("Stop")
    run.click()
    expect(run).to_have_accessible_name("Train")
    expect(status).to_have_text(re.compile("^stopped"))
    prediction = reset(page, demo)
    run.click()
    expect(run).to_have_accessible_name("Stop")
    expect(run).to_have_accessible_name("Train")
    expect(status).to_have_text(re.compile(r"\d"))
    assert answer(page, demo) != prediction
    assert "Run: step" in demo.locator(".mlk-picture").get_attribute("alt")
    demo.screenshot(path=PICTURES / f"{name}_trained.png")
    demo.get_by_label("width").press("ArrowRight")
    answer(page, demo)
    expect(status).to_have_text("")


def reset(page, demo):
    demo.locator(".mlk-reset").click()
    return answer(page, demo)


def answer(page, demo):
    """The picture's address once the kernel has answered: a picture with its text, or a line that says why not."""
    settled(page)
    picture, refusal = demo.locator(".mlk-picture"), demo.locator(".mlk-refusal")
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
    said = refusal.text_content() if refusal.is_visible() else picture.get_attribute("alt")
    assert len(said) > 20
    return picture.get_attribute("src")
