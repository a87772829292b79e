"""Notebook 01 as a reader meets it: JupyterLab in a browser, all cells run, a slider moved by keyboard.

Leaves pictures of it in build/browser, to be looked at.
"""

from __future__ import annotations

import _browser
import pytest
from _browser import PICTURES
from _notebooks import check_real_omniglot

NAME = "01_derive_metantk"
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Notebook 01, all of it."""
    with _browser.opened(tmp_path_factory.mktemp("lab"), NAME, minutes=20) as course:
        yield course


def test_all_cells_run_without_an_error(course):
    page, errors = course
    page.locator(".jp-Notebook h1").scroll_into_view_if_needed()
    page.screenshot(path=PICTURES / "notebook01_top.png")
    assert not _browser.troubles(page)
    assert not errors
    pictures = page.locator(".jp-Notebook .jp-OutputArea img")
    assert pictures.count() >= 5
    assert pictures.evaluate_all("images => images.every(image => image.complete && image.naturalWidth > 0)")


def test_real_omniglot_is_used_where_it_is_found(course, real_data):
    """Of the notebook as the reader saves it."""
    check_real_omniglot(_browser.saved(course[0], NAME))


def test_the_demo_answers_to_the_keyboard(course):
    page, errors = course
    demo = page.locator(".jp-CodeCell", has=page.locator(".mlk-demo")).first
    outputs = demo.locator(".jp-Cell-outputWrapper")
    outputs.scroll_into_view_if_needed()
    image = demo.locator(".mlk-picture")
    pictures = [image.get_attribute("src")]

    def changed():
        """The picture, once it is another than the last one."""
        other = "([cell, last]) => (cell.querySelector('.mlk-picture')?.src ?? last) !== last"
        page.wait_for_function(other, arg=[demo.element_handle(), pictures[-1]], timeout=240_000)
        pictures.append(image.get_attribute("src"))
        assert len(image.get_attribute("alt")) > 20
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
        return pictures[-1]

    for label, key in (("inner steps", "ArrowRight"), ("inner steps", "ArrowLeft"), ("width", "ArrowLeft")):
        slider = demo.get_by_role("slider", name=label)
        slider.focus()
        page.keyboard.press(key)
        changed()
        assert slider.evaluate("slider => slider === document.activeElement"), "the slider has lost the keyboard"
    assert pictures[2] == pictures[0] != pictures[1], "back where it was, the picture is the same"
    demo.get_by_text("ANIL", exact=True).click()
    changed()
    assert "ANIL" in image.get_attribute("alt")
    demo.get_by_role("button", name="Reset").click()
    assert changed() == pictures[0]
    assert "MAML" in image.get_attribute("alt")
    outputs.screenshot(path=PICTURES / "notebook01_demo.png")
    assert not _browser.troubles(page)
    assert not errors
