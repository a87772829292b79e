"""What a run found: the claims of all executed notebooks in claims.json, and the index page that shows them."""

from __future__ import annotations

import json
from pathlib import Path

from mlkernels.course.claim_records import VERDICTS, broken, claims_of
from mlkernels.runner.jobs import record_of
from mlkernels.runner.pages import TEMPLATES, copy_mathjax, first_figure, heading, write_page
from mlkernels.support import results
from mlkernels.support.files import write_atomically
from mlkernels.support.words import seconds


def gather(out: Path, *, preset: str) -> dict:
    """All that the executed notebooks of a folder say, as claims.json holds it, for a run of this preset.

    Each claim has the notebook, preset, seed and device that it was measured with.
    """
    notebooks, claims = {}, []
    for path in sorted(out.glob("[0-9][0-9]_*.ipynb")):
        if record := record_of(path):
            notebooks[path.stem] = record
            where = {"notebook": path.stem, **{name: record[name] for name in ("preset", "seed", "device")}}
            claims += [{**claim, **where} for claim in claims_of(json.loads(path.read_text(encoding="utf-8")))]
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


def write_report(out: Path, *, preset: str, command: str) -> dict:
    """Write claims.json, which it gives, the thumbnails and index.html of a folder of notebooks, and pages that are
    missing.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    out.mkdir(parents=True, exist_ok=True)
    result = results.save(out / "claims.json", gather(out, preset=preset), command=command)
    copy_mathjax(out)
    cards = []
    for name, record in result["notebooks"].items():
        notebook = json.loads((out / f"{name}.ipynb").read_text(encoding="utf-8"))
        if not (out / f"{name}.html").exists():
            write_page(out / f"{name}.ipynb")
        title, sentence = heading(notebook)
        thumbnail = None
        if figure := first_figure(notebook):
            suffix, content, alt = figure
            thumbnail = (f"thumbs/{name}{suffix}", alt)
            write_atomically(out / thumbnail[0], content)
        cards.append({"name": name, "title": title or name, "sentence": sentence, "thumbnail": thumbnail, **record})
    loader, trim = FileSystemLoader(TEMPLATES), {"trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, **trim)
    page = environment.get_template("index.html.j2").render(
        result=result,
        cards=cards,
        device=device_line(result["device"]),
        total=seconds(sum(record["wall_seconds"] for record in result["notebooks"].values())),
        counts={verdict: sum(c["verdict"] == verdict for c in result["claims"]) for verdict in VERDICTS},
        broken={claim["id"] for claim in broken(result["claims"])},
        marks=VERDICTS,
        seconds=seconds,
    )
    write_atomically(out / "index.html", page)
    return result
