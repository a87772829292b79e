"""The makers' tools: the README's table of claims."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from _cli import status_of

from mlkernels.errors import InputError
from mlkernels.nas import PUBLISHED, Genotype
from tools import judge_search, readme

VERSIONS = {"python": "1.0", "jax": "1.0"}
DEVICE = {"platform": "cpu", "kind": "cpu", "count": 1, "cores": 2, "x64": True}
CLAIM = {"source": "Someone 2020", "measured": "-0.5", "expected": "-0.5", "why": "", "notebook": "01_derive"}


def run(*arguments):
    return status_of(*arguments, command=readme.command)


def test_readme_is_written_and_checked(tmp_path, capsys):
    path, claims = tmp_path / "README.md", tmp_path / "claims.json"
    path.write_text("# T\n<!-- claims:begin -->\n<!-- claims:end -->\n")
    result = {"claims": [], "preset": "quick", "created": "2025-01-01", "device": {}, "versions": {}}
    claims.write_text(json.dumps(result))
    options = ["--claims", claims, "--readme", path]
    assert run(*options, "--check") == 1
    assert "differs from" in capsys.readouterr().err
    assert "No claims" not in path.read_text()
    assert run(*options) == 0
    assert "No claims have been measured yet." in path.read_text()
    assert run(*options, "--check") == 0
    claims.write_text("[]")
    assert run(*options) == 2
    assert run("--claims", tmp_path / "none.json", "--readme", path) == 2
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize("place", ["file/inside", "file/in/side", "nowhere/inside", "dangling/inside", "x" * 300])
def test_a_place_that_cannot_be_written_to_gets_one_line_and_status_2(tmp_path, capsys, place):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    (tmp_path / "claims.json").write_text("{}")
    place = Path("/proc/none/inside") if place.startswith("nowhere") and Path("/proc").is_dir() else tmp_path / place
    assert run("--claims", tmp_path / "claims.json", "--readme", place) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("tools.readme: ")
    assert shown.out == ""


def test_a_tilde_that_the_shell_has_left_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    result = {"claims": [], "preset": "quick", "created": "2025-01-01", "device": {}, "versions": {}}
    (tmp_path / "claims.json").write_text(json.dumps(result))
    (tmp_path / "README.md").write_text("<!-- claims:begin -->\n<!-- claims:end -->\n")
    assert run("--claims", "~/claims.json", "--readme", "~/README.md") == 0
    assert "No claims" in (tmp_path / "README.md").read_text()


def test_claims_table_is_markdown_that_survives_bars_and_line_ends():
    table = readme.claims_table(
        [
            CLAIM | {"statement": "a | b\nc", "verdict": "holds"},
            CLAIM | {"statement": "It falls.", "verdict": "not tested here", "why": "class only"},
        ]
    )
    lines = table.splitlines()
    assert lines[0] == "| Claim | Source | Expected | Measured | Verdict | Notebook |"
    assert lines[2] == "| a \\| b c | Someone 2020 | -0.5 | -0.5 | ✓ holds | 01 |"
    assert "○ not tested here (class only)" in lines[3]
    assert len(lines) == 4


def test_readme_block_is_replaced_and_stays_when_nothing_changed():
    result = {"claims": [], "preset": "class", "created": "2025-01-02T00:00:00", "device": DEVICE, "versions": VERSIONS}
    old = f"# T\n\n{readme.BEGIN}\nold\n{readme.END}\nend\n"
    new = readme.readme_with(old, result)
    assert "old" not in new
    assert new.endswith(f"{readme.END}\nend\n")
    assert "`mlkernels run --preset class`: CPU, 2 cores, float64, Python 1.0, JAX 1.0, 2025-01-02." in new
    assert readme.readme_with(new, result) == new


@pytest.mark.parametrize("text", ["", readme.BEGIN, readme.END, f"{readme.END} {readme.BEGIN}"])
def test_readme_without_the_marks_is_refused(text):
    with pytest.raises(InputError, match="claims:begin"):
        readme.readme_with(text, {"claims": []})


def run_of(measured, preset="class", **statuses):
    """A claims.json of notebooks with a claim each."""
    notebooks = {name: {"status": status, "started": "2026-01-02"} for name, status in statuses.items()}
    claims = [CLAIM | {"notebook": n, "statement": n, "verdict": "holds", "measured": measured} for n in statuses]
    about = {"preset": preset, "created": "2026-01-02", "device": DEVICE, "versions": VERSIONS}
    return about | {"notebooks": notebooks, "claims": claims}


def test_some_notebooks_run_again_leave_the_rows_of_the_others(tmp_path):
    path, kept, new = tmp_path / "README.md", tmp_path / "kept.json", tmp_path / "new.json"
    path.write_text(f"{readme.BEGIN}\n{readme.END}\n")
    kept.write_text(json.dumps(run_of("old", one="finished", three="finished", two="finished")))
    new.write_text(json.dumps(run_of("new", four="finished", three="failed", two="finished")))
    options = ["--claims", new, "--keep", kept, "--readme", path]
    before = kept.read_bytes()
    assert run(*options, "--check") == 1
    assert kept.read_bytes() == before
    assert run(*options) == 0
    result = json.loads(kept.read_text())
    told = {claim["notebook"]: claim["measured"] for claim in result["claims"]}
    assert told == {"four": "new", "one": "old", "three": "old", "two": "new"}
    assert [*result["notebooks"]] == [*told] == ["four", "one", "three", "two"]
    assert run("--claims", kept, "--readme", path, "--check") == 0
    assert run(*options, "--check") == 0
    new.write_text(json.dumps(run_of("new", preset="quick", one="finished")))
    assert run(*options) == 2, "sizes of two presets in one table"


def test_pictures_of_tagged_cells_are_saved(tmp_path):
    output = {"output_type": "display_data", "data": {"image/png": base64.b64encode(b"picture").decode()}}
    cells = [
        {"cell_type": "code", "metadata": {"tags": ["readme"]}, "source": "", "outputs": [output]},
        {"cell_type": "code", "metadata": {}, "source": "", "outputs": [output]},
    ]
    executed = tmp_path / "01_first.ipynb"
    executed.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    (saved,) = readme.save_pictures(executed, tmp_path)
    assert saved.name == "01_first_1.png"
    assert saved.read_bytes() == b"picture"


def test_the_readme_shows_the_claims_that_were_measured():
    """README.md and data/results/claims.json belong together: see tools/readme.py."""
    measured = Path(__file__).parents[1] / "data" / "results" / "claims.json"
    assert run("--claims", measured, "--check") == 0


@pytest.mark.parametrize(
    ("days", "said"), [(["2026-01-02"], ", 2026-01-02."), (["2026-01-09", "2026-01-02"], ", 2026-01-02 to 2026-01-09.")]
)
def test_the_readme_says_between_which_days_its_claims_were_measured(days, said):
    runs = {f"{i:02}": {"started": f"{day}T03:04:05+00:00"} for i, day in enumerate(days)}
    result = {"claims": [], "preset": "quick", "created": "2025-01-01", "device": {}, "versions": {}}
    assert said in readme.readme_with(f"{readme.BEGIN}\n{readme.END}", result | {"notebooks": runs})


def packed(path, channels, genotype=None):
    settings = {"cells": 5, "channels": channels, "pixels": 32, "colours": 1}
    path.write_text(json.dumps({"settings": settings} | ({} if genotype is None else {"genotype": genotype})))
    return path


def test_found_architectures_are_judged_beside_random_and_published_ones(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(judge_search, "training_free_scores", lambda *args, **options: asked.append((args, options)))
    monkeypatch.setattr(judge_search, "datasets", type("Datasets", (), {"load": str}))
    found = "N: c3<0 c3<1 | c3<0 c3<1 | c3<0 c3<1 R: c3<0 c3<1 | c3<0 c3<1 | c3<0 c3<1"
    unfinished, done = packed(tmp_path / "a.json", 16), packed(tmp_path / "b.json", 16, found)
    judge_search.judge([unfinished, done], tmp_path / "out.json")
    judge_search.judge([unfinished], tmp_path / "out.json")
    (((genotypes, data, settings), options), ((before, *_), again)) = asked
    assert (data, settings.layout.channels, options["out"]) == ("miniimagenet", 16, tmp_path / "out.json")
    assert len(set(genotypes[:30])) == 30
    assert tuple(genotypes[30:]) == (*PUBLISHED["miniimagenet", 5], Genotype.parse(found))
    assert before == genotypes[:33], "what was scored before keeps its number"
    assert (options["key"] == again["key"]).all()
    with pytest.raises(InputError, match="of one size"):
        judge_search.judge([done, packed(tmp_path / "c.json", 48)], tmp_path / "out.json")
