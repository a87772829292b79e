"""Names of files and datasets, values, errors: whatever a text from outside is made of, it is shown as text."""

from __future__ import annotations

import io

import pytest
from _cli import status_of
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mlkernels.commands import main
from mlkernels.commands.options import Counter, say
from mlkernels.course import claims
from mlkernels.course.claim_records import CLAIM_MIME, markdown_cell
from mlkernels.course.plots import to_png
from mlkernels.course.plots.verdicts import verdict_map
from mlkernels.errors import InputError, bad_input, one_line
from mlkernels.nas import Genotype
from mlkernels.runner import kept, pages, pool, report, site_pages
from mlkernels.support.progress import Progress
from mlkernels.support.words import printable
from tools import readme

EVIL = "<b>x</b><script>alert(1)</script>\"'&amp; | `code` *em* _em_ [a](b) ![i](j) <!-- c --> $x$ ~~s~~ \\ end"
SCREEN = "\x1b]0;title\x07\x1b[2J\x9b31m\u202eback\r\x00\udcff"
DEVICE = {"platform": "cpu", "kind": "cpu", "count": 1, "x64": True, "cores": 2}


# --- refusals and the terminal ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["x" * 2**20, "line\n" * 2**18, repr("y" * 2**20), SCREEN])
def test_a_refusal_is_one_short_printable_line_whatever_came(text):
    for error in (bad_input("it", "a number", text, "do"), bad_input(text, "a number", 3, "do")):
        assert str(error).isprintable()
        assert len(str(error)) < 500
    assert str(bad_input("it", "a", "3", "do")) == "it: expected a, got 3; do"


def test_the_middle_of_a_long_text_is_left_out_and_its_length_said():
    said = one_line("begin" + "x" * 10**6 + "end")
    assert said.startswith("beginxxx")
    assert said.endswith("xxxend (1000008 characters)")
    assert one_line("a" * 300) == "a" * 300


@pytest.mark.parametrize("text", ["s3<0 " * 2**18, "N: " + "s" * 2**20, "Genotype(normal=" + "9" * 2**20, "\n" * 2**20])
def test_a_genotype_of_a_megabyte_is_refused_in_a_line(text, capsys):
    with pytest.raises(InputError) as caught:
        Genotype.parse(text)
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()
    assert status_of("nas", "genotype", text) == 2
    assert len(capsys.readouterr().err) < 1000


@pytest.mark.parametrize("arguments", [["data", "get"], ["lab"], ["nas", "search", "--cells"], ["--no-such"], ["run"]])
def test_no_command_repeats_a_megabyte_or_moves_the_cursor(arguments, capsys):
    for text in ("q" * 2**20, SCREEN.replace("\x00", "")):
        assert status_of(*arguments, text) == 2
        shown = capsys.readouterr()
        assert len(shown.out + shown.err) < 5000
        assert shown.err.rstrip("\n").isprintable()


def test_what_commands_show_is_printable_lines(capsys):
    say(f"one\n  two {SCREEN}")
    first, second = capsys.readouterr().out.splitlines()
    assert (first, second[:6], second.isprintable()) == ("one", "  two ", True)
    stream = io.StringIO()
    Counter(stream)(Progress(1, 1, SCREEN, note=SCREEN))
    pool.Display([SCREEN], stream).end(SCREEN, SCREEN)
    assert all(line.isprintable() for line in stream.getvalue().split("\n"))
    assert printable("é ± ✓ · λ") == "é ± ✓ · λ"


def test_findings_of_check_are_printable(monkeypatch, capsys):
    from mlkernels.course import installation

    monkeypatch.setattr(installation, "check", lambda: [installation.Finding("data", SCREEN, False, SCREEN)])
    assert status_of("check", command=main.cli) == 1
    shown = capsys.readouterr()
    assert all(line.isprintable() for line in (shown.out + shown.err).split("\n"))


# --- pages and tables -------------------------------------------------------------------------------------------------


def a_claim(**more):
    told = dict.fromkeys(("statement", "source", "measured", "expected", "why", "test"), EVIL)
    return {"id": "a.b", "verdict": "does not hold", "expected_to_hold": False, "values": {}, **told, **more}


def evil_notebook(failure=None):
    """A notebook that shows such a text wherever one may stand."""
    png = {"image/png": "iVBORw0KGgo=", "text/plain": EVIL}
    outputs = [new_output("display_data", data={CLAIM_MIME: a_claim(), "text/plain": EVIL})]
    outputs += [new_output("stream", text=EVIL + SCREEN[:-1])]
    outputs += [new_output("display_data", data=png, metadata={"image/png": {"alt": EVIL, "caption": EVIL}})]
    outputs += [new_output("error", ename=EVIL, evalue=EVIL, traceback=[EVIL])]
    made = new_notebook(cells=[new_markdown_cell("# A\n\nB."), new_code_cell(f"x = {EVIL!r}", outputs=outputs)])
    made.metadata["mlkernels"] = {
        "status": "failed" if failure else "finished", "preset": EVIL, "seed": EVIL, "parameters": {"data": EVIL},
        "config": {}, "versions": dict.fromkeys(("python", "jax", "neural-tangents"), EVIL), "failure": failure,
        "device": DEVICE | {"platform": "gpu", "kind": EVIL}, "started": EVIL, "wall_seconds": 1.0, "fingerprint": "f",
    }  # fmt: skip
    return made


def injected(page):
    """The elements that none but such a text could have made."""
    soup = BeautifulSoup(page, "html.parser")
    return [tag for tag in soup.find_all(["b", "script", "s", "del"]) if tag.get_text() in ("x", "alert(1)", "s")]


def test_pages_and_the_index_show_texts_as_they_are(tmp_path):
    failure = {"cell": 1, "shown": 1, "id": EVIL, "line": EVIL, "error": EVIL}
    kept.keep(evil_notebook(), tmp_path / "00_a.ipynb")
    kept.keep(evil_notebook(failure), tmp_path / "01_<b>x<·b>&'\".ipynb")
    report.write_report(tmp_path, preset=EVIL, command=EVIL)
    made = sorted(tmp_path.glob("*.html"))
    assert len(made) == 3
    for page in made:
        text = page.read_text(encoding="utf-8")
        assert EVIL[:8] not in text
        assert injected(text) == []
        assert "alert(1)" in text
    index = BeautifulSoup((tmp_path / "index.html").read_text(encoding="utf-8"), "html.parser")
    assert index.find("footer").find("code").get_text() == EVIL
    cells = index.find_all(attrs={"data-label": "Measured"})
    assert [cell.get_text() for cell in cells] == [EVIL, EVIL]


def test_a_page_named_by_its_file_has_no_markup_of_it():
    notebook = new_notebook(cells=[new_code_cell("x")])
    assert injected(pages.render(notebook, EVIL, EVIL)) == []


def test_addresses_of_pages_lead_to_files_of_any_name(tmp_path):
    name = "01_a?b#c%d e\"'&<x>"
    kept.keep(evil_notebook(), tmp_path / f"{name}.ipynb")
    report.write_report(tmp_path, preset="quick", command="c")
    from urllib.parse import unquote

    soup = BeautifulSoup((tmp_path / "index.html").read_text(encoding="utf-8"), "html.parser")
    links = [tag["href"] for tag in soup.find("main").find_all("a") if tag["href"] != "claims.json"]
    assert links
    for link in [*links, soup.find("img")["src"]]:
        assert not set(link) & set("?#")
        assert (tmp_path / unquote(link)).exists()


def test_data_of_a_demo_cannot_end_its_script():
    class Demo:
        name, question, run = "d", EVIL, None

    place = site_pages._place(Demo, {"left": [EVIL], "question": "<!--<script></script>", "alt": EVIL}, "01_a", False)
    soup = BeautifulSoup(place, "html.parser")
    (script,) = soup.find_all("script")
    assert "<" not in script.get_text()
    assert injected(str(soup).replace(str(script), "")) == []


@pytest.mark.parametrize(
    "table",
    [
        lambda: readme.claims_table([a_claim(notebook=EVIL)]),
        lambda: claims._Table((claims.Claim(**a_claim()),)).markdown(),
        lambda: readme.readme_with(
            f"# T\n\n{readme.BEGIN}\n{readme.END}\n",
            {"claims": [a_claim(notebook=EVIL)], "preset": EVIL, "versions": {"python": EVIL, "jax": EVIL},
             "device": DEVICE | {"platform": "gpu", "kind": EVIL}, "created": EVIL},
        ),
    ],
    ids=["claims", "notebook", "readme"],
)  # fmt: skip
def test_a_markdown_table_shows_texts_as_they_are(table):
    from nbconvert.filters import markdown2html

    soup = BeautifulSoup(markdown2html(table()), "html.parser")
    assert len(soup.find_all("table")) == 1
    assert injected(str(soup)) == []
    first, second = (cell.get_text() for cell in soup.find("tbody").find_all("td")[:2])
    assert (first, second) == (EVIL, EVIL)
    assert not soup.find("table").find_all(["em", "code", "a", "img", "strong"])


def test_marks_of_the_readme_in_a_claim_are_text():
    old = f"# T\n\n{readme.BEGIN}\n{readme.END}\nlast\n"
    result = {"claims": [a_claim(statement=readme.END, notebook="01")], "preset": "q", "versions": {}, "device": DEVICE}
    once = readme.readme_with(old, result | {"created": "2025-01-01"})
    assert once.count(readme.END) == 1
    assert readme.readme_with(once, result | {"created": "2025-01-01"}) == once


def test_words_of_claims_stay_as_they_were_written():
    for text in ("(1 - eta lambda_min / 3)^(2t) L_0.", "95 % interval -0.5 to 0.2, n = 5", "✓ holds", "r' H r / n²"):
        assert markdown_cell(text) == text


def test_a_value_with_dollars_is_no_formula_in_a_sweeps_picture():
    fig = verdict_map({"data": [r"$\frac{$", EVIL]}, {"demo.one": ["holds", "failed"]}, title=r"$\nothing$")
    assert to_png(fig).startswith(b"\x89PNG")
