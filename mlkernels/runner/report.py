"""What a run found: the claims of all executed notebooks in claims.json, and the index page that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlkernels.course.claim_records import VERDICTS, broken, claims_of
from mlkernels.runner.kept import intact, mend_page, touched, write_together
from mlkernels.runner.pages import TEMPLATES, copy_mathjax, first_figure, heading
from mlkernels.support import results
from mlkernels.support.strict_json import dumps, load
from mlkernels.support.words import seconds


def executed_in(folder: Path) -> list[Path]:
    """The notebooks of a folder, in order."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def touched_in(folder: Path) -> list[str]:
    """The names of the notebooks of a folder that were executed and are not as their runs left them."""
    return [path.stem for path in executed_in(folder) if touched(path)]


def gather(paths: Sequence[Path], *, preset: str) -> dict:
    """All that these executed notebooks say, as claims.json holds it, for a run of this preset.

    One that was edited since its run, or is cut, says nothing. Each claim has the notebook, preset, seed and device
    that it was measured with.
    """
    notebooks, claims = {}, []
    for path in paths:
        if notebook := intact(path):
            record = notebooks[path.stem] = notebook["metadata"]["mlkernels"]
            where = {"notebook": path.stem, **{name: record[name] for name in ("preset", "seed", "device")}}
            claims += [{**claim, **where} for claim in claims_of(notebook)]
    ran = [record for record in notebooks.values() if "x64" in record["device"]]
    with_jax = [record for record in ran if record["device"]["platform"] != "none"]
    latest = max(with_jax or ran, key=lambda record: record["started"], default={})
    return {
        "preset": preset,
        "versions": latest.get("versions", {}),
        "device": latest.get("device", {}),
        "notebooks": notebooks,
        "claims": claims,
    }


def device_line(device: dict) -> str:
    """A device in words."""
    if device.get("platform") in (None, "unknown", "none"):
        return str(device.get("kind", "device unknown"))
    if device["platform"] == "cpu":
        cores = device["cores"]
        words = f"CPU, {cores} core{'s' if cores > 1 else ''}"
    else:
        words = f"{device['count']} x {device['kind']}"
    return words + (", float64" if device["x64"] else ", float32")


def environment():
    """Jinja's environment of the pages' templates."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader, trim = FileSystemLoader(TEMPLATES), {"trim_blocks": True, "lstrip_blocks": True}
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, **trim)


def of_claims(claims: Sequence[dict]) -> dict:
    """What the table of claims and the line above it show, for their templates."""
    return {
        "claims": claims,
        "counts": {verdict: sum(c["verdict"] == verdict for c in claims) for verdict in VERDICTS},
        "broken": {claim["id"] for claim in broken(claims)},
        "marks": VERDICTS,
    }


def card_of(name: str, notebook: dict, record: dict, thumbnail: tuple[str, str] | None) -> dict:
    """What a notebook's card shows, for its template."""
    title, sentence = heading(notebook)
    return {"name": name, "title": title or name, "sentence": sentence, "thumbnail": thumbnail, "after": (), **record}


def write_report(out: Path, *, preset: str, command: str) -> dict:
    """Write claims.json, which it gives, the thumbnails and index.html of a folder of notebooks, all together; and
    pages that are missing, cut or of another run.
    """
    out.mkdir(parents=True, exist_ok=True)
    executed = executed_in(out)
    copy_mathjax(out)
    for path in executed:
        mend_page(path)
    result = results.with_origin(gather(executed, preset=preset), command=command)
    cards, files = [], {}
    for name, record in result["notebooks"].items():
        notebook = load(out / f"{name}.ipynb")
        thumbnail = None
        if figure := first_figure(notebook):
            suffix, content, alt = figure
            thumbnail = (f"thumbs/{name}{suffix}", alt)
            files[out / thumbnail[0]] = content
        cards.append(card_of(name, notebook, record, thumbnail))
    page = (
        environment()
        .get_template("index.html.j2")
        .render(
            nav=(),
            result=result,
            preset=preset,
            cards=cards,
            device=device_line(result["device"]),
            total=seconds(sum(record["wall_seconds"] for record in result["notebooks"].values())),
            seconds=seconds,
            **of_claims(result["claims"]),
        )
    )
    write_together({**files, out / "claims.json": dumps(result, indent=1) + "\n", out / "index.html": page})
    return result
