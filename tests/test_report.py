"""Claims, pages and the index, from executed notebooks made by hand: no kernel runs here."""

from __future__ import annotations

import base64
import json
import os
import shutil

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mlkernels.course import claim_records, claims
from mlkernels.runner import kept, pages, report
from mlkernels.support.files import write_atomically

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n picture").decode()
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 2 1"><rect width="2" height="1"/></svg>'
DEVICE = {"platform": "cpu", "kind": "cpu", "count": 1, "x64": True, "cores": 2}
VERSIONS = dict.fromkeys(("python", "jax", "jaxlib", "neural-tangents", "numpy", "mlkernels"), "1.0")


def shown(data, **metadata):
    return new_output("display_data", data=data, metadata=metadata)


def code(source, *outputs, tags=()):
    cell = new_code_cell(source, outputs=list(outputs), execution_count=1)
    cell.metadata["tags"] = list(tags)
    return cell


def a_claim(id="meta.rate", verdict="holds", **more):
    claim = {
        "id": id,
        "statement": "It falls | fast.",
        "source": "Someone 2020",
        "measured": "-0.5",
        "expected": "-0.5",
    }
    return {**claim, "verdict": verdict, "why": "", "test": "t", "expected_to_hold": True, "values": {}, **more}


def a_notebook(*cells, **record):
    notebook = new_notebook(cells=[new_markdown_cell("# Derive <it>\n\nFrom *one* task to `many`. And on."), *cells])
    notebook.metadata["mlkernels"] = {
        "status": "finished", "preset": "quick", "seed": 0, "parameters": {}, "config": {}, "versions": VERSIONS,
        "device": DEVICE, "started": "2025-01-01T00:00:00+00:00", "wall_seconds": 75.0, "fingerprint": "f",
        "failure": None,
        **record,
    }  # fmt: skip
    return notebook


RICH = [
    code(
        "plot()",
        shown({"image/png": PNG, "text/plain": "fig"}, **{"image/png": {"alt": 'Error "falls"', "width": 320}}),
    ),
    code("draw()", shown({"image/svg+xml": SVG, "text/plain": "fig"}, **{"image/svg+xml": {"alt": "A box"}})),
    new_markdown_cell("$$\\Phi = \\Theta$$ and $\\tau$"),
    code("slider()", shown({pages.WIDGET: {"model_id": "abc"}, "text/plain": "IntSlider()"}), tags=["widget"]),
    code("secret = 1", tags=["solution"]),
    code("claim()", shown({claim_records.CLAIM_MIME: a_claim(), "text/html": "<p>holds</p>", "text/plain": "holds"})),
]


def page_of(notebook, name="01_derive"):
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {"abc": {}}}}
    return BeautifulSoup(pages.render(notebook, name, "Derive"), "html.parser")


def assert_offline(soup):
    """Nothing is loaded from a network."""
    loaded = [tag.get("src") or "" for tag in soup.find_all(["script", "img", "iframe"])]
    loaded += [tag.get("href") or "" for tag in soup.find_all("link")]
    assert not [address for address in loaded if address.startswith(("http", "//"))]
    scripts = " ".join(script.get_text() for script in soup.find_all("script"))
    assert "http" not in scripts
    assert "import(" not in scripts
    assert "@import" not in " ".join(style.get_text() for style in soup.find_all("style"))


def test_the_mime_type_is_the_one_that_claims_emit():
    assert claim_records.CLAIM_MIME == claims.CLAIM_MIME
    assert set(report.VERDICTS) == {claims.HOLDS, claims.FAILS, claims.UNTESTED}


def test_claims_of_takes_the_last_of_an_id():
    first, last = a_claim(measured="1"), a_claim(measured="2")
    notebook = new_notebook(
        cells=[code("", shown({claim_records.CLAIM_MIME: first}), shown({claim_records.CLAIM_MIME: last}))]
    )
    assert report.claims_of(notebook) == [last]


def test_broken_are_those_that_were_expected_to_hold():
    fails = a_claim("a.b", "does not hold")
    shown_to_fail = a_claim("a.c", "does not hold", expected_to_hold=False)
    assert report.broken([a_claim(), fails, shown_to_fail, a_claim("a.d", "not tested here")]) == [fails]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "# Title\n\n![map](map.png)\n\nSee [this](x.md) at $n^{-1/2}_{k}$. Then more.",
            ("Title", "See this at $n^{-1/2}_{k}$."),
        ),
        ("# Only a title", ("Only a title", "")),
        ("no title here", ("", "no title here")),
        ("# A `b` **c**\n\n| a | b |\n\n- list\n\nIt is e.g. so.\nAnd so.", ("A b c", "It is e.g. so.")),
    ],
)
def test_heading(text, expected):
    assert pages.heading(new_notebook(cells=[new_markdown_cell(text)])) == expected


def test_first_figure():
    assert pages.first_figure(a_notebook(*RICH)) == (".png", b"\x89PNG\r\n\x1a\n picture", 'Error "falls"')
    assert pages.first_figure(a_notebook(RICH[1])) == (".svg", SVG.encode(), "A box")
    assert pages.first_figure(a_notebook()) is None


def test_page_keeps_alt_text_of_png_and_svg():
    images = page_of(a_notebook(*RICH)).find_all("img")
    assert [image["alt"] for image in images] == ['Error "falls"', "A box"]
    assert images[0]["width"] == "320"
    assert images[0]["src"] == f"data:image/png;base64,{PNG}"


def test_page_needs_no_network_and_finds_mathjax_beside_it(tmp_path):
    soup = page_of(a_notebook(*RICH))
    assert_offline(soup)
    script = next(tag["src"] for tag in soup.find_all("script") if tag.get("src"))
    assert script.partition("?")[0] == pages.MATHJAX
    entry = pages.copy_mathjax(tmp_path)
    assert entry == tmp_path / pages.MATHJAX
    config = script.partition("config=")[2]
    assert (tmp_path / "mathjax" / "config" / f"{config}.js").exists()
    assert "$$\\Phi = \\Theta$$" in soup.get_text()


def test_mathjax_is_copied_once_and_what_is_damaged_of_it_again(tmp_path):
    pages.copy_mathjax(tmp_path)
    files = sorted(path for path in (tmp_path / "mathjax").rglob("*") if path.is_file())
    whole = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    empty, cut, missing, zeros = damaged = files[::50][:4]
    empty.write_bytes(b"")
    cut.write_bytes(whole[cut][0][:-9])
    missing.unlink()
    zeros.write_bytes(bytes(len(whole[zeros][0])))
    pages.copy_mathjax(tmp_path)
    assert {path: path.read_bytes() for path in files} == {path: content for path, (content, _) in whole.items()}
    assert [path for path in files if path.stat().st_mtime_ns != whole[path][1]] == sorted(damaged)
    assert [path.name for path in tmp_path.iterdir()] == ["mathjax"]


def test_mathjax_that_another_run_copies_meanwhile_is_kept(tmp_path, monkeypatch):
    replace = os.replace

    def late(source, target):
        shutil.copytree(source, target)
        replace(source, target)

    monkeypatch.setattr(pages.os, "replace", late)
    assert pages.copy_mathjax(tmp_path).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["mathjax"]


def test_page_replaces_widgets_by_a_note():
    soup = page_of(a_notebook(*RICH))
    note = soup.find(class_="widget-note")
    assert " ".join(note.get_text().split()) == "Interactive in JupyterLab: mlkernels lab 01"
    assert "widget-view" not in str(soup)
    assert "IntSlider" not in soup.get_text()


def test_page_leaves_out_the_still_picture_before_a_widget():
    still = shown({"text/html": "<p>Run this cell.</p>", "text/plain": "Run this cell."})
    still.metadata[pages.STILL] = True
    soup = page_of(a_notebook(code("slider()", still, shown({pages.WIDGET: {"model_id": "abc"}, "text/plain": ""}))))
    assert "Run this cell" not in soup.get_text()
    assert len(soup.find_all(class_="widget-note")) == 1


def test_page_folds_solutions_and_links_back():
    soup = page_of(a_notebook(*RICH))
    folded = soup.find("details")
    assert folded.find("summary").get_text() == "Solution"
    assert not folded.has_attr("open")
    assert "secret" in folded.get_text()
    assert len(soup.find_all("details")) == 1
    assert soup.find("nav").find("a")["href"] == "index.html"
    assert soup.find("html")["lang"] == "en"
    assert soup.find("title").get_text() == "Derive"


def test_page_of_a_failed_notebook_says_where_it_stopped():
    failure = {"cell": 3, "shown": 2, "id": "abcd", "line": "1 / 0", "error": "ZeroDivisionError: <division>"}
    soup = page_of(a_notebook(code("1 / 0"), status="failed", failure=failure))
    alert = soup.find(role="alert")
    assert "cell 3" in alert.get_text()
    assert "ZeroDivisionError: <division>" in alert.get_text()
    assert alert.find("a")["href"] == "#cell-id=abcd"


@pytest.fixture
def out(tmp_path):
    """A folder with a good and a failed executed notebook, reported."""
    fails = a_claim("meta.fails", "does not hold", statement="x < y", measured="3")
    untested = a_claim("meta.later", "not tested here", why="class only")
    cell = code("c", shown({claim_records.CLAIM_MIME: fails}), shown({claim_records.CLAIM_MIME: untested}))
    kept.keep(a_notebook(*RICH), tmp_path / "00_good.ipynb")
    failure = {"cell": 3, "shown": 2, "id": "abcd", "line": "1 / 0", "error": "ZeroDivisionError: <division>"}
    record = {"preset": "class", "status": "failed", "failure": failure, "device": {"platform": "unknown"}}
    kept.keep(a_notebook(cell, **record), tmp_path / "01_bad.ipynb")
    nbformat.write(new_notebook(), tmp_path / "02_not_executed.ipynb")
    (tmp_path / "claims.json").write_text("old")
    report.write_report(tmp_path, preset="quick", command="mlkernels run --set 'a=<b>'")
    return tmp_path


def test_claims_json_has_the_claims_with_their_origin(out):
    result = json.loads((out / "claims.json").read_text())
    assert [claim["id"] for claim in result["claims"]] == ["meta.rate", "meta.fails", "meta.later"]
    assert result["claims"][1] | {"notebook": "01_bad", "preset": "class", "seed": 0} == result["claims"][1]
    assert result["preset"] == "quick"
    assert result["command"] == "mlkernels run --set 'a=<b>'"
    assert result["versions"] == VERSIONS
    assert result["device"] == DEVICE
    assert list(result["notebooks"]) == ["00_good", "01_bad"]


def test_report_leaves_nothing_half_written(out):
    names = {path.name for path in out.iterdir()}
    assert names == {
        "00_good.ipynb", "00_good.html", "01_bad.ipynb", "01_bad.html", "02_not_executed.ipynb",
        "claims.json", "index.html", "mathjax", "thumbs",
    }  # fmt: skip
    assert (out / "thumbs" / "00_good.png").read_bytes() == b"\x89PNG\r\n\x1a\n picture"


def test_index_shows_cards_and_claims(out):
    soup = BeautifulSoup((out / "index.html").read_text(), "html.parser")
    assert_offline(soup)
    assert soup.find("html")["lang"] == "en"
    assert len(soup.find_all("h1")) == 1
    assert [tag.name for tag in soup.find_all(["h1", "h2", "h3"])] == ["h1", "h2", "h3", "h3", "h2"]
    good, bad = soup.find_all("li")
    assert good.find("h3").get_text() == "Derive <it>"
    assert good.find("h3").find("a")["href"] == "00_good.html"
    assert good.find("img")["alt"] == 'Error "falls"'
    assert (out / good.find("img")["src"]).exists()
    text = " ".join(good.get_text().split())
    assert "From one task to many." in text
    assert "✓ finished · 1 min 15 s" in text
    assert "preset class" in bad.get_text()
    assert "ZeroDivisionError: <division>" in bad.get_text()
    header = " ".join(soup.find("header").get_text().split())
    for part in ("Preset quick", "CPU, 2 cores, float64", "JAX 1.0", "2 min 30 s in all", "UTC"):
        assert part in header
    verdicts = [" ".join(cell.get_text().split()) for cell in soup.find_all(attrs={"data-label": "Verdict"})]
    assert verdicts == [
        "✓ holds",
        "✗ does not hold it was expected to hold".replace("hold it", "holdit"),
        "○ not tested hereclass only",
    ]
    assert "mlkernels run --set 'a=<b>'" in soup.find("footer").get_text()


def test_index_of_nothing(tmp_path):
    report.write_report(tmp_path / "new", preset="full", command="mlkernels run")
    text = (tmp_path / "new" / "index.html").read_text()
    assert "No notebook has been executed yet" in text
    assert "No claim was measured" in text


def test_a_text_that_cannot_be_written_keeps_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "a.txt"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
