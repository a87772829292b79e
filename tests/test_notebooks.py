"""The course's notebooks: their frame, and what a run of all of them leaves, without data and without a network."""

from __future__ import annotations

import ast
import base64
import io
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import html5lib
import nbformat
import numpy as np
import pytest
from _accessibility import CUT, FAINT, page_faults
from _browser import browser_page, chromium
from _compilation import as_a_reader
from _notebooks import begins, needed, outputs, read
from bs4 import BeautifulSoup
from PIL import Image

from mlkernels import datasets
from mlkernels.course.claim_records import CLAIM_MIME, VERDICTS, broken, claims_of
from mlkernels.course.judging import OPEN, RIGHT
from mlkernels.course.ranges import ranges_of
from mlkernels.errors import InputError
from mlkernels.runner import jobs, notebooks, parameters

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
LINES = 25  # of a code cell
COLUMNS = 100  # of a line of code, as notebooks/ruff.toml has it
ALT = 20  # characters that say what a picture shows
NOWHERE = "http://127.0.0.1:9"  # a proxy that refuses: whoever asks for the network fails at once
SECTIONS = ("In practice", "Claims of this notebook", "References")
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
each_lesson = pytest.mark.parametrize(
    "path", [path for path in NOTEBOOKS if not path.stem.startswith("00")], ids=lambda path: path.stem
)


def tags(cell):
    return cell.metadata.get("tags", [])


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def headings(text):
    """(level, text) of the headings in Markdown; what is fenced as code has none."""
    plain = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.M | re.S)
    return [(len(mark), title.strip()) for mark, title in re.findall(r"^(#{1,6})\s+(.+?)\s*#*$", plain, re.M)]


def sections(notebook):
    """(level, text) of all headings, in order."""
    return [found for cell in notebook.cells if cell.cell_type == "markdown" for found in headings(cell.source)]


# --- the frame --------------------------------------------------------------------------------------------------------


def test_there_are_notebooks():
    assert NOTEBOOKS


@each_notebook
def test_one_title_at_the_top_and_headings_in_order(path):
    notebook = read(path)
    found = sections(notebook)
    titles = [title for level, title in found if level == 1]
    assert len(titles) == 1, f"H1 headings: {titles}"
    assert notebook.cells[0].cell_type == "markdown"
    assert headings(notebook.cells[0].source)[:1] == [(1, titles[0])], "the H1 opens the first cell"
    for (level, title), (deeper, below) in itertools.pairwise(found):
        assert deeper <= level + 1, f"from H{level} {title!r} to H{deeper} {below!r}"


@each_notebook
def test_the_start_says_what_it_is_for(path):
    """What you will do, learn and need, and how long it takes, before the parameters."""
    cells = read(path).cells
    start = next(index for index, cell in enumerate(cells) if "parameters" in tags(cell))
    text = " ".join(cell.source for cell in cells[:start]).lower()
    missing = [word for word in ("you will do", "you will learn", "you need", "minute") if word not in text]
    assert not missing


@each_notebook
def test_parameters_are_annotated_and_explained(path):
    (cell,) = [cell for cell in read(path).cells if "parameters" in tags(cell)]
    lines = cell.source.splitlines()
    nodes = ast.parse(cell.source).body
    nodes = [node for node in nodes if ast.unparse(node) != "from typing import Optional"]
    assert all(isinstance(node, ast.AnnAssign) and node.value is not None for node in nodes), cell.source
    assert {"preset", "seed"} <= {node.target.id for node in nodes}
    uncommented = [node.target.id for node in nodes if not re.search(r"#\s*\w", lines[node.end_lineno - 1])]
    assert not uncommented, "papermill shows the comment as help"


@each_notebook
def test_papermill_lists_every_parameter(path):
    """papermill --help-notebook reads lines, not Python: no `|`, no second `=`."""
    from papermill.inspection import inspect_notebook

    own, listed = parameters.parameters_of(notebooks.read_notebook(path)), inspect_notebook(path)
    assert list(listed) == list(own)
    assert {name: one["help"] for name, one in listed.items()} == {name: one.help for name, one in own.items()}
    assert all(
        (one["default"] == "None") == one["inferred_type_name"].startswith("Optional[") for one in listed.values()
    )


@each_notebook
def test_every_parameter_has_its_range_and_is_handed_to_choose(path):
    own = parameters.parameters_of(notebooks.read_notebook(path))
    assert [name for name, one in own.items() if one.allowed is None] == ["preset"]
    nodes = [node for cell in code_cells(read(path)) for node in ast.walk(ast.parse(cell.source))]
    (call,) = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "presets.choose"]
    handed = {word.arg for word in call.keywords if ast.unparse(word.value) == word.arg}
    assert set(own) - {"preset"} <= handed
    assert ast.unparse(call.args[0]) == "preset"
    assert set(ranges_of(notebooks.read_notebook(path))) == set(own) - {"preset", "seed"}


def ends_and_beyond(allowed, tmp_path):
    """Texts for --set that are just in a range, and texts that just are not."""
    if allowed == "folder":
        (tmp_path / "file").touch()
        return [tmp_path / "new" / "folder"], ["", tmp_path / "file" / "inside", tmp_path / "file"]
    if isinstance(allowed, list):
        return allowed, ["", "no_such_name", allowed[0].upper()]
    least, most = allowed
    if isinstance(least, int):
        return [least, most or 10**6], [least - 1, *([] if most is None else [most + 1])]
    return [least, most], [np.nextafter(least, -np.inf), np.nextafter(most, np.inf), "inf", "-inf", "nan"]


@each_notebook
def test_the_runner_takes_both_ends_of_each_range_and_refuses_what_is_beyond(path, tmp_path):
    own = parameters.parameters_of(notebooks.read_notebook(path))

    def planned(name, text):
        (job,), _ = jobs.plan(path.parent, [path.stem], tmp_path / "out", "quick", [f"{name}={text}"])
        return job.parameters[name]

    for name, one in own.items():
        if one.allowed is not None:
            inside, outside = ends_and_beyond(one.allowed, tmp_path)
            for text in inside:
                assert str(planned(name, text)) == str(text)
            for text in outside:
                with pytest.raises(InputError, match=f"--set {name}: expected|expected a folder, got a file"):
                    planned(name, text)
        if "None" in one.types:
            assert planned(name, "none") is None
    assert sorted(tmp_path.iterdir()) in ([], [tmp_path / "file"]), "nothing but the test's own file"


def test_a_datasets_name_is_one_that_there_is():
    data = ranges_of(notebooks.read_notebook(next(path for path in NOTEBOOKS if path.stem.startswith("04"))))["data"]
    assert sorted(data) == sorted(datasets.names())


@each_notebook
def test_code_cells_are_short(path):
    long = {
        f"cell {index}, {cell.source.splitlines()[0]!r}": lines
        for index, cell in enumerate(read(path).cells, 1)
        if cell.cell_type == "code" and (lines := len(cell.source.splitlines())) > LINES
    }
    assert not long


@each_notebook
def test_lines_of_code_are_short(path):
    cells = enumerate(read(path).cells, 1)
    lines = [(index, line) for index, cell in cells if cell.cell_type == "code" for line in cell.source.splitlines()]
    assert not [(index, line) for index, line in lines if len(line) > COLUMNS]


def private_names(source):
    """What this code takes from mlkernels and is not meant to: modules, imported names and attributes with a `_`."""
    found, ours = [], set()
    nodes = list(ast.walk(ast.parse(source)))
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "mlkernels":
            found += [node.module, *(alias.name for alias in node.names)]
            ours |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            ours_too = [alias for alias in node.names if alias.name.partition(".")[0] == "mlkernels"]
            found += [alias.name for alias in ours_too]
            ours |= {alias.asname or "mlkernels" for alias in ours_too}
    found += [
        ast.unparse(node)
        for node in nodes
        if isinstance(node, ast.Attribute) and ast.unparse(node).partition(".")[0] in ours
    ]
    return [name for name in found if any(part.startswith("_") for part in name.split("."))]


@each_notebook
def test_notebooks_use_public_names_alone(path):
    source = "\n".join(cell.source for cell in code_cells(read(path)))
    assert not private_names(source)


@pytest.mark.parametrize(
    "source",
    [
        "from mlkernels.course.demos import _anil_problem",
        "from mlkernels.course.demos._anil_problem import plane",
        "import mlkernels.course.demos._anil_problem as problem",
        "from mlkernels import nas\nnas._plan",
        "import mlkernels\nmlkernels.nas._plan.draw()",
    ],
)
def test_a_private_name_is_seen(source):
    assert private_names(source)
    assert not private_names(source.replace("_", ""))


@each_notebook
def test_each_widget_is_followed_by_its_static_twin(path):
    cells = code_cells(read(path))
    shows = re.compile(r"widgets\.explore\((.+)\)")
    for index, cell in enumerate(cells):
        if "widget" in tags(cell):
            demo = shows.search(cell.source)
            assert demo, f"tagged widget, but shows no demo: {cell.source}"
            assert index + 1 < len(cells), f"no cell after {cell.source}"
            assert f"widgets.twin({demo[1]})" in cells[index + 1].source, f"after {cell.source}"
        else:
            assert not shows.search(cell.source), f"shows a demo and is not tagged widget: {cell.source}"


@each_lesson
def test_exercises_have_a_check_and_a_solution(path):
    cells = code_cells(read(path))
    marked = [kind for cell in cells for kind in ("exercise", "solution") if kind in tags(cell)]
    assert len(marked) >= 8, f"four exercises or more, each with its solution: {marked}"
    assert marked == ["exercise", "solution"] * (len(marked) // 2), "each exercise is followed by its solution"
    for stub, solution in itertools.pairwise(cells):
        if "exercise" in tags(stub):
            assert "solution" in tags(solution), f"the next code cell is no solution of {stub.source[:80]}"
            assert checks(stub), f"no check in {stub.source[:80]}"
            assert checks(stub) == checks(solution), "stub and solution are checked alike"
            functions = [node for node in ast.parse(stub.source).body if isinstance(node, ast.FunctionDef)]
            assert all(ast.get_docstring(function) for function in functions), "a stub's docstring gives the shapes"


def checks(cell):
    """The numbers of the exercises that a cell checks."""
    calls = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
    return [ast.literal_eval(call.args[0]) for call in calls if ast.unparse(call.func) == "exercises.check"]


@each_lesson
def test_the_last_sections_are_there(path):
    titles = [title for level, title in sections(read(path)) if level == 2]
    assert [title for title in titles if title in SECTIONS] == list(SECTIONS), titles
    assert any(title.startswith("Exercises") for title in titles), titles


# --- what a run leaves ------------------------------------------------------------------------------------------------


def environment(**more):
    """This process's environment, without data and with a network that refuses."""
    proxies = {f"{kind}_proxy": NOWHERE for kind in ("http", "https", "ftp", "all")}
    proxies |= {name.upper(): value for name, value in proxies.items()} | {"no_proxy": "", "NO_PROXY": ""}
    return {name: value for name, value in as_a_reader().items() if name != "MLKERNELS_DATA"} | proxies | more


def run(out, *arguments, **more):
    command = [sys.executable, "-m", "mlkernels", "run", *arguments, "--preset", "quick", "--out", str(out)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=1800, check=False, env=environment(**more), cwd=out.parent
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """All notebooks in the quick preset: the finished process and the folder that it wrote."""
    out = tmp_path_factory.mktemp("course") / "quick"
    return run(out), out


@pytest.fixture(params=[path.stem for path in NOTEBOOKS])
def name(request):
    return request.param


def executed(out, name):
    """An executed notebook, and that it is there."""
    path = out / f"{name}.ipynb"
    assert path.exists(), f"{name} was not executed"
    return read(path)


def said(cell):
    """The first words that the check in an executed cell showed."""
    texts = ["".join(output.data["text/plain"]) for output in cell.outputs if "text/plain" in output.get("data", {})]
    return [text.partition(":")[0].partition(" ")[2] for text in texts]


@pytest.mark.notebook
def test_the_run_ends_well(ran):
    done, out = ran
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert [path.stem for path in sorted(out.glob("*.ipynb"))] == [path.stem for path in NOTEBOOKS]


@pytest.mark.notebook
def test_no_cell_warns_or_fails(ran, name):
    notebook = executed(ran[1], name)
    noise = [
        f"cell {index}: {output.get('text') or output.get('evalue')}"
        for index, output in outputs(notebook)
        if output.output_type == "error" or output.get("name") == "stderr"
    ]
    assert not noise
    unrun = [cell.source[:80] for cell in code_cells(notebook) if cell.source and cell.execution_count is None]
    assert not unrun


@pytest.mark.notebook
def test_every_picture_has_alt_text(ran, name):
    pictures, silent = 0, []
    for index, output in outputs(executed(ran[1], name)):
        for mime in output.get("data", {}):
            if mime.startswith("image/"):
                pictures += 1
                alt = output.metadata.get(mime, {}).get("alt", "")
                if len(alt.strip()) <= ALT:
                    silent.append(f"cell {index}, {mime}: {alt!r}")
    assert pictures, "no picture at all"
    assert not silent


@pytest.mark.notebook
def test_a_picture_stands_near_the_top(ran, name):
    """At the latest in the first section."""
    begun = 0
    for cell in executed(ran[1], name).cells:
        if cell.cell_type == "markdown":
            begun += sum(level == 2 for level, _ in headings(cell.source))
        if any(mime.startswith("image/") for output in cell.get("outputs", []) for mime in output.get("data", {})):
            break
    assert begun <= 1, f"{begun} sections begin before the first picture"


@pytest.mark.notebook
def test_the_record_says_how_it_was_made(ran, name):
    notebook = executed(ran[1], name)
    record = notebook.metadata["mlkernels"]
    assert record["status"] == "finished"
    assert (record["preset"], record["failure"]) == ("quick", None)
    config = record["config"]
    assert config.get("notebook") == name, f"presets.choose(notebook=...) in {name} says {config.get('notebook')!r}"
    assert (config["preset"], config["seed"]) == ("quick", record["seed"])
    assert config["settings"]
    assert {"python", "jax", "neural-tangents", "numpy", "mlkernels"} <= set(record["versions"])
    assert record["device"]["platform"] not in ("unknown", "none")
    assert record["wall_seconds"] > 0


@pytest.mark.notebook
def test_claims_hold_and_are_gathered(ran):
    out = ran[1]
    result = json.loads((out / "claims.json").read_text(encoding="utf-8"))
    shown = {(path.stem, claim["id"]) for path in NOTEBOOKS for claim in claims_of(executed(out, path.stem))}
    assert {(claim["notebook"], claim["id"]) for claim in result["claims"]} == shown
    for claim in result["claims"]:
        assert claim["verdict"] in VERDICTS
        assert claim["measured"], claim["id"]
    bad = [f"{c['id']}: expected {c['expected']}, measured {c['measured']}" for c in broken(result["claims"])]
    assert not bad
    assert {path.stem for path in NOTEBOOKS[1:]} <= {claim["notebook"] for claim in result["claims"]}


@pytest.mark.notebook
def test_every_claim_that_is_made_is_displayed(ran, name):
    """A claim that is computed and never shown would escape claims.json."""
    notebook = executed(ran[1], name)
    source = "\n".join(cell.source for cell in code_cells(notebook))
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    made = {
        ast.literal_eval(call.args[0])
        for call in calls
        if ast.unparse(call.func) in ("claims.claim", "claim") and isinstance(call.args[0], ast.Constant)
    }
    shown = {o.data[CLAIM_MIME]["id"] for _, o in outputs(notebook) if CLAIM_MIME in o.get("data", {})}
    assert made <= shown, f"made and not displayed: {sorted(made - shown)}"


@pytest.mark.notebook
def test_solutions_are_right_and_stubs_are_open(ran, name):
    for cell in code_cells(executed(ran[1], name)):
        if "exercise" in tags(cell):
            assert said(cell)[-1:] == [OPEN], f"the stub's check says {said(cell)}:\n{cell.source}"
        if "solution" in tags(cell):
            assert said(cell)[-1:] == [RIGHT], f"the solution's check says {said(cell)}:\n{cell.source}"


@pytest.mark.notebook
def test_pages_need_no_network_and_show_their_pictures(ran, name):
    page = BeautifulSoup((ran[1] / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
    assert len(page.find_all("h1")) == 1, [title.get_text() for title in page.find_all("h1")]
    assert not [note.get_text() for note in page.find_all(role="alert")]
    loaded = [tag.get("src") or tag.get("href") for tag in page.find_all(["script", "link", "iframe", "img"])]
    outside = [address for address in filter(None, loaded) if urlsplit(address).scheme not in ("", "data")]
    outside += re.findall(r"@import[^;]*https?:[^;]*|url\(['\"]?https?:[^)]*\)", str(page))
    assert not outside, f"{name}.html loads {outside}"
    for image in page.find_all("img"):
        alt = image.get("alt", "")
        assert len(alt.strip()) > ALT, f"{name}.html, alt text {alt!r}"
        check_image(ran[1], image["src"], alt)


@pytest.mark.notebook
def test_pages_are_valid_and_accessible(ran, name):
    page = (ran[1] / f"{name}.html").read_text(encoding="utf-8")
    html5lib.HTMLParser(strict=True).parse(re.sub(r"(?<=;base64,)[\w+/=]+", "", page))  # the pictures take its time
    assert not page_faults(BeautifulSoup(page, "html.parser"))


# The equations that stick out of what holds them; a page scrolls there, and a reader may not see that it does.
CUT_OFF = """() => [...document.querySelectorAll(".MathJax_Display")]
  .filter(shown => shown.scrollWidth > shown.clientWidth + 1)
  .map(shown => shown.parentElement.querySelector("script[type^='math/tex']").text)"""


SCREEN, PHONE, PAPER = 1280, 390, 700  # pixels: A4's within its margins


@pytest.fixture(scope="module")
def seen(ran):
    """What a browser finds in each page, opened once: fault -> {notebook: what has it}."""
    path = chromium()
    if path is None:
        pytest.skip("no Chromium")
    found = {"cut off": {}, "faint": {}, "wider than a phone": {}, "wider than paper": {}}
    with browser_page(path) as (page, _):
        for notebook in NOTEBOOKS:
            page.set_viewport_size({"width": SCREEN, "height": 1000})
            page.goto((ran[1] / f"{notebook.stem}.html").as_uri())
            page.wait_for_function("window.MathJax && MathJax.Hub && MathJax.isReady")
            page.evaluate("document.querySelectorAll('details').forEach(folded => { folded.open = true; })")
            page.evaluate("() => new Promise(done => MathJax.Hub.Queue(() => done(true)))")
            found["cut off"][notebook.stem] = page.evaluate(CUT_OFF)
            found["faint"][notebook.stem] = page.evaluate(FAINT)
            page.set_viewport_size({"width": PHONE, "height": 844})
            width = page.evaluate("document.documentElement.scrollWidth")
            found["wider than a phone"][notebook.stem] = [] if width == PHONE else [width]
            page.set_viewport_size({"width": PAPER, "height": 1000})
            page.emulate_media(media="print")
            page.evaluate("dispatchEvent(new Event('beforeprint'))")
            found["wider than paper"][notebook.stem] = page.evaluate(CUT)
            page.emulate_media(media="screen")
    return {fault: {name: those for name, those in where.items() if those} for fault, where in found.items()}


@pytest.mark.notebook
def test_no_equation_is_cut_off(seen):
    assert not seen["cut off"]


@pytest.mark.notebook
def test_pages_can_be_read_on_a_screen_on_a_phone_and_on_paper(seen):
    assert not seen["faint"]
    assert not seen["wider than a phone"]
    assert not seen["wider than paper"]


@pytest.mark.notebook
def test_the_index_shows_every_notebook_and_claim(ran):
    out = ran[1]
    page = BeautifulSoup((out / "index.html").read_text(encoding="utf-8"), "html.parser")
    assert page.find("h1")
    links = {link.get("href", "").partition("#")[0] for link in page.find_all("a")}
    assert {f"{path.stem}.html" for path in NOTEBOOKS} <= links
    statements = [claim["statement"] for claim in json.loads((out / "claims.json").read_text())["claims"]]
    text = " ".join(page.get_text().split())
    assert not [statement for statement in statements if " ".join(statement.split()) not in text]
    thumbnails = page.find_all("img")
    assert len(thumbnails) == len(NOTEBOOKS)
    for image in thumbnails:
        check_image(out, image["src"], image.get("alt", ""))


def check_image(folder, source, alt):
    """The picture is there and can be read; an SVG need only be one."""
    kind, comma, data = source.partition(",")
    content = base64.b64decode(data) if comma and kind.startswith("data:") else (folder / source).read_bytes()
    if "svg" in kind or source.endswith(".svg"):
        assert b"<svg" in content, f"no SVG: {alt}"
        return
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        assert min(picture.size) > 50, f"{picture.size}: {alt}"


@pytest.mark.notebook
def test_notebook_01_says_which_images_it_took(ran):
    notebook = executed(ran[1], "01_derive_metantk")
    assert "glyphs: " in printed(notebook)
    sources = [claim["source"] for claim in claims_of(notebook) if claim["id"].startswith("metantk.images")]
    assert sources
    assert all("glyphs" in source for source in sources), sources


@pytest.mark.notebook
def test_notebook_01_uses_real_omniglot_where_it_is_found(real_data, tmp_path):
    """Of the notebook what classifies images, and what that needs."""
    (path,) = [path for path in NOTEBOOKS if path.stem.startswith("01")]
    notebook = read(path)
    shows = re.compile(r"images\.summary\(\)|-shot on {images\.name}")
    notebook.cells = needed(notebook, lambda cell: begins(cell) or shows.search(cell.source))
    nbformat.write(notebook, tmp_path / path.name)
    more = ("--notebooks", str(tmp_path), "--set", "episodes=20")
    done = run(tmp_path / "real", "01", *more, MLKERNELS_DATA=str(real_data))
    assert done.returncode == 0, done.stderr
    said = printed(read(tmp_path / "real" / path.name))
    assert "omniglot: " in said
    assert "5-shot on omniglot" in said
    assert "glyphs" not in said


def printed(notebook):
    return "\n".join(output.get("text", "") for _, output in outputs(notebook))
