"""Write the README's claims from a claims.json, after `make run PRESET=class`, of all notebooks or some:

python -m tools.readme --claims build/class/claims.json --keep data/results/claims.json --pictures data/results
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

import click

from mlkernels.commands.main import main
from mlkernels.commands.options import TypedPath, say
from mlkernels.course.claim_records import VERDICTS, markdown_cell
from mlkernels.errors import InputError, bad_input, one_line
from mlkernels.runner.report import device_line
from mlkernels.support import results
from mlkernels.support.checked import signed
from mlkernels.support.files import check_place, write_atomically
from mlkernels.support.strict_json import dumps

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- claims:begin -->", "<!-- claims:end -->"


def claims_table(claims: Sequence[dict]) -> str:
    """The claims as a Markdown table.

    Args:
        claims: of claims.json.

    Returns:
        The table, without a line end; one sentence where there are no claims.
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
    return "\n".join("| " + " | ".join(map(markdown_cell, row)) + " |" for row in rows)


def readme_with(readme: str, result: dict) -> str:
    """A README whose block between the claims marks is generated from a claims.json.

    Args:
        readme: its text.
        result: what claims.json holds.

    Returns:
        The new text.

    Raises:
        InputError: the marks are not there, once and in order.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise bad_input(
            "README", f"a block between {BEGIN} and {END}", "none", "put both lines where the table belongs"
        )
    versions = result["versions"]
    made = [device_line(result["device"])]
    made += [f"{label} {versions[name]}" for name, label in (("python", "Python"), ("jax", "JAX")) if name in versions]
    started = [str(run["started"])[:10] for run in result.get("notebooks", {}).values() if run.get("started")]
    days = sorted({*started} or {result["created"][:10]})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    how = f"`mlkernels run --preset {one_line(result['preset']).replace('`', '')}`"
    line = f"Measured by {how}: {markdown_cell(', '.join([*made, when]))}."
    return f"{before}{BEGIN}\n\n{claims_table(result['claims'])}\n\n{line}\n\n{END}{after}"


def merged(old: dict, new: dict) -> dict:
    """What a claims.json holds once some notebooks were run again.

    Args:
        old: what it holds.
        new: what that of the run holds. A notebook that did not finish there stays as it was.

    Returns:
        The new one, with the notebooks and claims of the old one that it has not.

    Raises:
        InputError: they are of different presets, and so of different sizes.
    """
    if old["preset"] != new["preset"]:
        do = f"run it so: make run PRESET={old['preset']}"
        raise bad_input("preset", f"{old['preset']}, as what is kept", new["preset"], do)
    ran = {name: record for name, record in new["notebooks"].items() if record["status"] == "finished"}
    notebooks = dict(sorted((old["notebooks"] | ran).items()))
    claims = {name: [c for c in (new if name in ran else old)["claims"] if c["notebook"] == name] for name in notebooks}
    return signed(new | {"notebooks": notebooks, "claims": [claim for those in claims.values() for claim in those]})


def save_pictures(executed: Path, out: Path, tag: str = "readme") -> list[Path]:
    """Save the PNG figures of an executed notebook's cells that carry a tag, as OUT/NAME_1.png and so on.

    Args:
        executed: the notebook.
        out: the folder, which must exist.
        tag: of the cells.

    Returns:
        The files written.
    """
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    tagged = [cell for cell in notebook["cells"] if tag in cell["metadata"].get("tags", [])]
    shown = [output.get("data", {}).get("image/png") for cell in tagged for output in cell.get("outputs", [])]
    saved = []
    for number, picture in enumerate(filter(None, shown), 1):
        saved.append(out / f"{executed.stem}_{number}.png")
        write_atomically(saved[-1], base64.b64decode("".join(picture)))
    return saved


@click.command("tools.readme", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--claims", required=True, type=TypedPath(dir_okay=False), help="A claims.json.")
@click.option("--readme", "path", type=TypedPath(dir_okay=False), help="The file [the checkout's README.md].")
@click.option(
    "--keep",
    type=TypedPath(dir_okay=False),
    help="A claims.json whose other notebooks stay in the table; it gets the new ones.",
)
@click.option("--check", "only_check", is_flag=True, help="Change nothing; exit status 1 if it would change.")
@click.option(
    "--pictures",
    type=TypedPath(exists=True, file_okay=False),
    help="Also save here the figures of the cells tagged readme, of the executed notebooks beside the claims.json.",
)
def command(claims, path, keep, only_check, pictures) -> int:
    """Write the README's claims from a claims.json."""
    path = path or ROOT / "README.md"
    for place in () if only_check else filter(None, (path, keep, pictures and pictures / "picture.png")):
        check_place(place)
    try:
        expected, do = "a claims.json of mlkernels run", "make one: mlkernels run"
        old, result = path.read_text(encoding="utf-8"), results.read(claims, expected, do)
        if keep:
            result = merged(results.read(keep, expected, do), result)
        new = readme_with(old, result)
    except InputError:
        raise
    except OSError as error:
        raise bad_input(str(error.filename), "a file that can be read", error.strerror, "give its path") from None
    except (ValueError, KeyError, TypeError) as error:
        do = "make one: mlkernels run"
        raise bad_input(str(claims), "a claims.json of mlkernels run", type(error).__name__, do) from None
    if only_check:
        say(f"{path}: {'as generated' if new == old else f'differs from {claims}'}", err=new != old)
        return int(new != old)
    if keep:
        write_atomically(keep, dumps(result, indent=1) + "\n")
    if new != old:
        write_atomically(path, new)
    for executed in sorted(claims.parent.glob("*.ipynb")) if pictures else []:
        save_pictures(executed, pictures)
    return 0


if __name__ == "__main__":
    main(command=command)
