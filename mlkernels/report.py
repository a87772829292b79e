"""What a run found: the claims of all executed notebooks in claims.json, and the index page that shows them.

Also writes the README's table of claims from a claims.json, so that it is never typed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from mlkernels.errors import bad_input
from mlkernels.files import write_atomically, write_text
from mlkernels.pages import TEMPLATES, copy_mathjax, first_figure, heading, write_page
from mlkernels.progress import seconds
from mlkernels.runner import record_of
from mlkernels.strict_json import dumps

CLAIM_MIME = "application/vnd.mlkernels.claim+json"
VERDICTS = {"holds": "✓", "does not hold": "✗", "not tested here": "○"}
BEGIN, END = "<!-- claims:begin -->", "<!-- claims:end -->"


def claims_of(notebook: dict) -> list[dict]:
    """The claims that an executed notebook measured.

    Args:
        notebook: executed.

    Returns:
        Each claim as it was emitted; of one id the last.

    Example:
        >>> claims_of({"cells": []})
        []
    """
    found = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if claim := output.get("data", {}).get(CLAIM_MIME):
                found.pop(claim["id"], None)
                found[claim["id"]] = claim
    return list(found.values())


def broken(claims: Sequence[dict]) -> list[dict]:
    """The claims that were expected to hold and do not.

    Example:
        >>> broken([{"id": "a", "verdict": "does not hold", "expected_to_hold": False}])
        []
    """
    return [claim for claim in claims if claim["verdict"] == "does not hold" and claim.get("expected_to_hold", True)]


def gather(out: Path, *, preset: str, command: str) -> dict:
    """All that the executed notebooks of a folder say, as claims.json holds it.

    Args:
        out: the folder.
        preset: of the run that asks.
        command: what was typed.

    Returns:
        `preset`, `command`, `created`, `versions`, `device`, `notebooks` (a record each), and `claims`, each with the
        notebook, preset, seed and device that it was measured with.
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
        "command": command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": latest.get("versions", {}),
        "device": latest.get("device", {}),
        "notebooks": notebooks,
        "claims": claims,
    }


def _device(device: dict) -> str:
    """A device in words.

    Example:
        >>> _device({"platform": "cpu", "kind": "cpu", "count": 1, "cores": 2, "x64": True})
        'CPU, 2 cores, float64'
    """
    if device.get("platform") in (None, "unknown", "none"):
        return str(device.get("kind", "device unknown"))
    if device["platform"] == "cpu":
        cores = device["cores"]
        words = f"CPU, {cores} core{'s' if cores > 1 else ''}"
    else:
        words = f"{device['count']} x {device['kind']}"
    return words + (", float64" if device["x64"] else ", float32")


def write_report(out: Path, *, preset: str, command: str) -> dict:
    """Write claims.json, the thumbnails and index.html of a folder of executed notebooks, and pages that are missing.

    Args:
        out: the folder.
        preset: of the run that asks.
        command: what was typed.

    Returns:
        What claims.json holds.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    out.mkdir(parents=True, exist_ok=True)
    result = gather(out, preset=preset, command=command)
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
            write_atomically(out / thumbnail[0], lambda path, content=content: path.write_bytes(content))
        cards.append({"name": name, "title": title or name, "sentence": sentence, "thumbnail": thumbnail, **record})
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("index.html.j2").render(
        result=result,
        cards=cards,
        device=_device(result["device"]),
        total=seconds(sum(record["wall_seconds"] for record in result["notebooks"].values())),
        counts={verdict: sum(c["verdict"] == verdict for c in result["claims"]) for verdict in VERDICTS},
        broken={claim["id"] for claim in broken(result["claims"])},
        marks=VERDICTS,
        seconds=seconds,
    )
    write_text(out / "claims.json", dumps(result, indent=2) + "\n")
    write_text(out / "index.html", page)
    return result


def claims_table(claims: Sequence[dict]) -> str:
    """The claims as a Markdown table.

    Args:
        claims: of claims.json.

    Returns:
        The table, without a line end; one sentence where there are no claims.

    Example:
        >>> claims_table([])
        'No claims have been measured yet.'
    """
    if not claims:
        return "No claims have been measured yet."
    rows = [["Claim", "Source", "Expected", "Measured", "Verdict", "Notebook"], ["---"] * 6]
    for claim in claims:
        verdict = f"{VERDICTS.get(claim['verdict'], '')} {claim['verdict']}".strip()
        if claim["verdict"] != "holds" and claim.get("why"):
            verdict += f" ({claim['why']})"
        rows.append(
            [*(claim[name] for name in ("statement", "source", "expected", "measured")), verdict, claim["notebook"][:2]]
        )
    return "\n".join(
        "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in row) + " |" for row in rows
    )


def readme_with(readme: str, result: dict) -> str:
    """A README whose block between the claims marks is generated from a claims.json.

    Args:
        readme: its text.
        result: what claims.json holds.

    Returns:
        The new text.

    Raises:
        InputError: the marks are not there, once and in order.

    Example:
        >>> result = {"claims": [], "preset": "quick", "created": "2025-01-02", "device": {}, "versions": {}}
        >>> readme_with(f"# A\\n{BEGIN}\\nold\\n{END}\\n", result).splitlines()[3]
        'No claims have been measured yet.'
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise bad_input(
            "README", f"a block between {BEGIN} and {END}", "none", "put both lines where the table belongs"
        )
    versions = result["versions"]
    made = [f"preset {result['preset']}", _device(result["device"])]
    made += [f"{label} {versions[name]}" for name, label in (("python", "Python"), ("jax", "JAX")) if name in versions]
    line = f"Measured by `mlkernels run --preset {result['preset']}`: {', '.join(made[1:])}, {result['created'][:10]}."
    return f"{before}{BEGIN}\n\n{claims_table(result['claims'])}\n\n{line}\n\n{END}{after}"
