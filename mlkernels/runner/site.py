"""The course as a site that needs neither kernel nor network: its map, notebooks whose demos move, claims, benchmarks.

Its pages work as files: one classic script in each, pictures by plain addresses, MathJax beside them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from mlkernels.course.demos.grid import Grid
from mlkernels.course.pictures import course_map
from mlkernels.course.plots import SCREEN, to_png
from mlkernels.course.tables import RESULTS
from mlkernels.runner.kept import record_of
from mlkernels.runner.notebooks import read_notebook
from mlkernels.runner.pages import copy_mathjax, first_figure, heading, with_named_tables
from mlkernels.runner.report import card_of, device_line, environment, gather, of_claims
from mlkernels.runner.site_benchmarks import benchmarks
from mlkernels.runner.site_frames import frames
from mlkernels.runner.site_pages import demos_of, picture, write_notebook
from mlkernels.support import results
from mlkernels.support.files import write_atomically
from mlkernels.support.words import seconds

NAV = [
    ("index.html", "Course map"), ("claims.html", "Claims"), ("benchmarks.html", "Benchmarks"),
    ("teacher.html", "For teachers"),
]  # fmt: skip
TEACHER = Path(__file__).with_name("teacher.md")
_THUMBNAIL = (640, 384)  # pixels, at most


def executed(sources: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Of these notebooks, name -> source, those that lie finished in a folder with the cells of the source today."""
    found = {name: folder / f"{name}.ipynb" for name in sources}
    return {
        name: path
        for name, path in found.items()
        if (record_of(path) or {}).get("status") == "finished" and _cells(path) == _cells(sources[name])
    }


def _cells(path: Path) -> list[str]:
    cells = read_notebook(path)["cells"]
    own = (cell for cell in cells if "injected-parameters" not in cell["metadata"].get("tags", []))
    return ["".join(cell["source"]) for cell in own]


def build(
    out: Path,
    notebooks: Mapping[str, Path],
    *,
    command: str,
    grids: Mapping[str, Grid] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict:
    """Write the site.

    Args:
        out: its folder; pictures in it that no page shows any more are removed.
        notebooks: name -> an executed notebook, in the order of the course.
        command: makes the site again.
        grids: demo -> the grid to draw instead of its own.
        say: called with a line about each demo: its pictures, their bytes, what was left out.

    Returns:
        bytes and files of the whole, and the tables of its demos.
    """
    import nbformat

    contents = {name: nbformat.read(path, as_version=4) for name, path in notebooks.items()}
    copy_mathjax(out)
    tables, shown = {}, []
    for name, content in contents.items():
        for demo in demos_of(content).values():
            table = tables[demo.name] = frames(demo, out / "demos" / demo.name, (grids or {}).get(demo.name))
            shown.append({"name": demo.name, "question": demo.question, "page": f"{name}.html"})
            pictures = f"{len(table['frames'])} settings, {len(table['runs'])} runs, {table['bytes'] / 1e6:.2f} MB"
            say(" ".join([f"{demo.name}: {pictures}.", *table["left"]]))
    for name, content in contents.items():
        write_notebook(content, name, out, NAV, tables)
    pages = _pages(out, contents, list(notebooks.values()), shown, command)
    for name, text in pages.items():
        write_atomically(out / name, text)
    _remove_unused(out)
    sizes = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
    return {"bytes": sum(sizes), "files": len(sizes), "demos": tables}


def _pages(
    out: Path, contents: Mapping[str, dict], paths: Sequence[Path], demos: list[dict], command: str
) -> dict[str, str]:
    """The pages around the notebooks, address -> HTML."""
    presets = sorted({content["metadata"]["mlkernels"]["preset"] for content in contents.values()})
    found = results.save(out / "claims.json", gather(paths, preset=", ".join(presets)), command=command)
    used = " · ".join(f"{name} {version}" for name, version in found["versions"].items())
    when = found["created"][:16].replace("T", " ")
    origin = f"Preset {found['preset']} · {device_line(found['device'])} · {used} · {when} UTC"
    cards = [_card(out, name, content, contents) for name, content in contents.items()]
    map_of_course = course_map.draw()
    src, *_ = picture(to_png(map_of_course), out)
    width, height = (round(float(inches) * SCREEN) for inches in map_of_course.get_size_inches())
    title, text = _markdown(TEACHER.read_text(encoding="utf-8"), contents)
    templates, common = environment(), {"nav": NAV, "command": command, "origin": origin}

    def page(template: str, here: str, **values) -> str:
        return templates.get_template(template).render(here=here, **common, **values)

    return {
        "index.html": page(
            "course_map.html.j2",
            "index.html",
            map={"src": src, "alt": course_map.ALT, "width": width, "height": height},
            cards=cards,
            demos=demos,
            preset=found["preset"],
            seconds=seconds,
        ),
        "claims.html": page("claims.html.j2", "claims.html", **of_claims(found["claims"])),
        "benchmarks.html": page("benchmarks.html.j2", "benchmarks.html", benchmarks=benchmarks(RESULTS)),
        "teacher.html": page("text.html.j2", "teacher.html", title=title, text=text),
    }


def _card(out: Path, name: str, content: dict, contents: Mapping[str, dict]) -> dict:
    """A notebook's card, with its first figure made small."""
    thumbnail, number = None, name.partition("_")[0]
    if figure := first_figure(content):
        suffix, drawn, alt = figure
        if suffix == ".png":
            image = Image.open(io.BytesIO(drawn)).convert("RGB")
            image.thumbnail(_THUMBNAIL)
            file = io.BytesIO()
            image.save(file, "png")
            thumbnail = (picture(file.getvalue(), out)[0], alt)
    before = [first for first, then in course_map.ARROWS if then == number]
    after = [(each, each.partition("_")[0]) for each in contents if each.partition("_")[0] in before]
    return card_of(name, content, content["metadata"]["mlkernels"], thumbnail) | {"after": after}


def _markdown(text: str, contents: Mapping[str, dict]) -> tuple[str, str]:
    """A text's title, and the rest of it as HTML; links to notebooks lead to their pages, where there are such."""
    from markupsafe import Markup
    from nbconvert.filters import markdown2html

    title = heading({"cells": [{"cell_type": "markdown", "source": text}]})[0]
    body = re.sub(r"^# .*$", "", text, count=1, flags=re.M)

    def page_of(found: re.Match) -> str:
        text, name = found.groups()
        return f"[{text}]({name}.html)" if name in contents else text

    body = re.sub(r"\[([^\]]*)\]\((?:[^()\s]*/)?([^()\s/]+)\.ipynb\)", page_of, body)
    return title, Markup(with_named_tables(markdown2html(body)))


def _remove_unused(out: Path) -> None:
    """Remove the pictures and styles of pages that have changed."""
    text = "".join(page.read_text(encoding="utf-8") for page in out.glob("*.html"))
    for folder in ("pictures", "styles"):
        for path in (out / folder).glob("*.*"):
            if path.name not in text:
                path.unlink()
