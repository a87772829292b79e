"""Pages and notebooks can be read without seeing, without a mouse, and with little contrast to see by."""

from __future__ import annotations

import re

import html5lib
import nbformat
import pytest
from _accessibility import contrast, heading_faults, link_faults, notebook_faults, page_faults
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mlkernels.course.widgets import explorer
from mlkernels.runner import notebooks, pages

NOTEBOOKS = [*notebooks.find_notebooks().values()]
INK = re.compile(
    r"(?:(?<![-\w])color|--(?:mlk-)?(?:ink|soft|link|accent|red|green)):\s*(?:var\([^)]*,\s*)?(#[0-9a-fA-F]{3,6})\b"
)
PAPERS = ("#ffffff", "#f6f7f9")  # of the pages, and of their heads and code
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@each_notebook
def test_a_notebooks_text(path):
    assert not notebook_faults(nbformat.read(path, as_version=4).cells)


@each_notebook
def test_a_notebooks_page(path):
    notebook = nbformat.read(path, as_version=4)
    page = pages.render(notebook, path.stem, pages.heading(notebook)[0])
    html5lib.HTMLParser(strict=True).parse(page)
    assert not page_faults(BeautifulSoup(page, "html.parser"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("## No first", "0 headings"),
        ("# One\n\n# Two", "2 headings"),
        ("# One\n\n### Three", "follows level 1"),
        ("# One\n\n## Same\n\n## Same", "2 times"),
        ("# One\n\n## One", "2 times"),
        ("# One\n\n![](a.png)", "no alt text"),
        ("# One\n\nsee [here](a.md)", "'here'"),
        ("# One\n\n[https://a.org](https://a.org)", "https://a.org"),
        ("# One\n\nsee https://a.org/b", "bare"),
    ],
)
def test_a_fault_in_a_text_is_seen(text, fault):
    assert any(fault in found for found in notebook_faults([new_markdown_cell(text)]))


def test_a_text_without_faults():
    text = "# One\n\n## Two\n\n### Three\n\n## Four\n\nsee [the paper](https://a.org) and `https://b.org`"
    assert not notebook_faults([new_markdown_cell(text)])
    assert heading_faults([(2, "x"), (1, "")])
    assert not link_faults("", "a.html", name="A picture")


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        ("<img src='a.png'>", "no alt text"),
        ("<a href='a.html'></a>", "without a text"),
        ("<table><tr><th scope='col'>a</th></tr></table>", "without caption"),
        ("<table><caption>c</caption><tr><td>a</td></tr></table>", "without header cells"),
        ("<table><caption>c</caption><tr><th>a</th></tr></table>", "without scope"),
        ("<input type='range'>", "without label"),
        ("<i id='a'></i><i id='a'></i>", "2 times"),
    ],
)
def test_a_fault_in_a_page_is_seen(part, fault):
    page = f"<html lang='en'><head><title>t</title></head><body><h1>t</h1>{part}</body></html>"
    (found,) = page_faults(BeautifulSoup(page, "html.parser"))
    assert fault in found


def test_a_table_of_a_text_gets_a_caption_and_scopes():
    cells = [new_markdown_cell("# Title\n\n## What it costs\n\n| a | b |\n|---|---|\n| 1 | 2 |")]
    soup = BeautifulSoup(pages.render(new_notebook(cells=cells), "01_a"), "html.parser")
    assert soup.find("caption").get_text() == "What it costs"
    assert [th["scope"] for th in soup.find_all("th")] == ["col", "col"]


class Look:
    """What the styles of a notebook's page say in the end."""

    def __init__(self):
        self.page = pages.render(new_notebook(cells=[new_code_cell("0b11")]), "01_a")
        self.set_to = dict(re.findall(r"(--[\w-]+):\s*([^;{}]+);", self.page))  # the last one, as in a browser

    def __call__(self, value):
        inner = re.fullmatch(r"var\((--[\w-]+)\)", value.strip())
        return self(self.set_to[inner[1]]) if inner else value


def test_every_kind_of_code_can_be_read():
    """A notebook may use any of them: binary numbers once were too pale."""
    look = Look()
    inks = {name: look(value) for name, value in re.findall(r"\.highlight \.(\w+) { color: ([^;{} ]+)", look.page)}
    assert {"c1", "k", "mb", "mi", "o", "s1"} <= {*inks}
    assert not {name: value for name, value in inks.items() if contrast(value, PAPERS[1]) < 4.5}


def test_no_page_names_a_font_that_it_does_not_bring():
    """What one reader has, another has not: pages would not look as they were tested."""
    look = Look()
    own = "".join(path.read_text(encoding="utf-8") for path in pages.TEMPLATES.rglob("*.css"))
    own += explorer.Path(explorer.__file__).with_suffix(".css").read_text(encoding="utf-8")
    named = re.findall(r"(?<![-\w])font-family:\s*([^;{}]+);", look.page.partition("</head>")[0])
    asked = [look(value) for value in named]
    asked += re.findall(r"\bfont:[^;]*?[\d.](?:rem|px|em)(?:/[\d.]+)?\s+([^;]+);", own)
    names = {name.strip() for families in asked for name in re.sub(r"var\([^,]*,([^)]*)\)", r"\1", families).split(",")}
    assert names
    assert names <= {"system-ui", "sans-serif", "serif", "ui-monospace", "monospace", "inherit"}


def test_contrast():
    assert round(contrast("#000", "#ffffff")) == 21
    assert contrast("#777777", "#ffffff") < 4.5 < contrast("#767676", "#fff")


@pytest.mark.parametrize("name", ["index.css", "course/page.css", "explorer.css"])
def test_the_colours_of_texts_can_be_read(name):
    path = explorer.Path(explorer.__file__).with_suffix(".css") if name == "explorer.css" else pages.TEMPLATES / name
    light = re.sub(r"\[data-jp-theme-light=.false.\][^}]*}", "", path.read_text(encoding="utf-8"))
    inks = set(INK.findall(light)) - {"#fff"}  # on an accent of its own
    assert inks
    assert not [(ink, paper) for ink in inks for paper in PAPERS if contrast(ink, paper) < 4.5]
