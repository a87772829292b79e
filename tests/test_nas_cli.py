"""mlkernels nas search: what it leaves, what it says beforehand, what it refuses and how."""

from __future__ import annotations

import json

import click
import pytest
from _cli import status_of

from mlkernels.commands import nas, options
from mlkernels.commands.options import Counter
from mlkernels.nas import Genotype, Layout, SearchSettings, search
from mlkernels.support.progress import Progress

SMALL = ["--data", "glyphs", "--cells", "2", "--channels", "4", "--pixels", "8", "--repeats", "1"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "imagenet"], ["--data: expected omniglot or glyphs or", "got imagenet"]),
        (["--data", "miniimagenet"], ["mlkernels data get miniimagenet"]),
        (["--cells", "1"], ["cells: expected a whole number from 2 to 1000, got 1"]),
        (["--channels", "20"], ["channels: expected widths of a multiple of 16, or below"]),
        (["--pixels", "0"], ["pixels: expected a whole number of at least 1"]),
        (["--space", "nasbench"], ["space: expected darts_fewshot or darts"]),
        (["--algorithm", "reptile"], ["algorithm: expected maml or anil"]),
        (["--inner-time", "soon"], ["'soon' is no number, nor inf"]),
        (["--inner-time", "-1"], ["inner_time: expected a number of at least 0"]),
        (["--score", "fisher"], ["condition: expected metantk or ntk or entropy"]),
        (["--score", "none", "--no-regions"], ["condition: expected a score to rank by"]),
        (["--devices", "64"], ["devices: expected a whole number from 1 to 1, got 64"]),
        (["--channels", "65536", "--cells", "5", "--pixels", "224", "--no-regions"], ["expected", "free, got"]),
        (["--channels", "65536", "--score", "synflow"], ["memory for scoring a network: expected", "free, got"]),
    ],
)
def test_what_is_refused_is_said_in_one_line(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("MLKERNELS_DATA", str(tmp_path))
    given = [*SMALL, "--no-regions", *arguments] if "none" not in arguments else [*SMALL, *arguments]
    assert status_of("nas", "search", *given, "--out", tmp_path / "out") == 2
    told = " ".join(capsys.readouterr().err.split())
    assert told.startswith("mlkernels: ")
    for words in said:
        assert words in told


def test_options_are_the_arguments_of_the_settings():
    """With their defaults, which are the published search, and what the docstrings say of them."""
    options = {option.name: option for option in nas.search.get_params(click.Context(nas.search))}
    told = SearchSettings(Layout())
    for name in ("algorithm", "inner_time", "ridge", "repeats", "seed", "condition", "regions", "reference_quirks"):
        assert options[name].default == getattr(told, name)
        help_ = options[name].help.rstrip(".").lower()
        assert help_ in " ".join(SearchSettings.__doc__.split()).replace("`", "").lower()
    for name in ("cells", "channels", "pixels"):
        assert options[name].default == getattr(told.layout, name)
    assert options["data"].default == "miniimagenet"
    assert options["repeats"].help == "How often each candidate is scored, with other weights and images each time."


def test_the_estimate_comes_before_and_a_dry_run_ends_there(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(options, "Counter", lambda stream: pytest.fail("nothing was to be searched"))
    out = tmp_path / "out"
    few = [*SMALL, "--space", "darts_fewshot", "--score", "none"]
    assert status_of("nas", "search", *few, "--dry-run", "--out", out) == 0
    told = capsys.readouterr().out
    assert "networks to score: 510 in 10 rounds" in told
    for word in ("floating-point operations:", "memory: about", "time: about", "of it compilation"):
        assert word in told
    assert not out.exists()


def test_a_search_leaves_its_result(capsys, tmp_path, monkeypatch):
    from mlkernels import datasets, nas

    def short(settings, dataset, **given):
        space = nas.Space("two", ("skip_connect", "max_pool_3x3"), 1)
        layout = Layout(space, cells=2, channels=2, pixels=8, ways=2, colours=1)
        small = SearchSettings(layout, condition="none", repeats=1, region_images=20)
        assert settings.layout.cells == 2
        assert dataset.name == datasets.load("glyphs").name
        return search(small, dataset, **given)

    monkeypatch.setattr(nas, "search", short)
    out = tmp_path / "out"
    assert status_of("nas", "search", *SMALL, "--out", out) == 0
    told = capsys.readouterr()
    genotype = json.loads((out / "result.json").read_text(encoding="utf-8"))["short"]
    assert told.out.splitlines()[0] == genotype
    assert Genotype.parse(told.out.splitlines()[1]) == Genotype.parse(genotype)
    assert "9 of 9, round 1 of 1" in told.err
    assert status_of("nas", "search", *SMALL, "--out", out) == 0  # it is finished: nothing is scored again
    assert capsys.readouterr().out.splitlines()[0] == genotype


def test_a_genotype_is_written_in_each_notation(capsys, tmp_path):
    text = "N: sk<0 c3<1 R: c3<0 c3<1"
    (tmp_path / "result.json").write_text(json.dumps({"genotype": f"mine = {Genotype.parse(text).nested}"}))
    for given in (text, tmp_path / "result.json"):
        assert status_of("nas", "genotype", given) == 0
        told = capsys.readouterr().out.splitlines()
        assert told == [text, repr(Genotype.parse(text)), Genotype.parse(text).nested]
    assert status_of("nas", "genotype", "N: s9<0") == 2
    assert "genotype: expected" in capsys.readouterr().err


def test_what_is_shown_on_a_terminal(capsys):
    class Terminal:
        text = ""

        def write(self, text):
            self.text += text

        def flush(self):
            pass

        def isatty(self):
            return True

    shown = Terminal()
    display = Counter(shown)
    display(Progress(400, 1500, "round 2 of 7", "-12.0% condition number without conv_3x3 0 to node 2, normal", 75.0))
    display.close()
    for words in ("round 2 of 7, 1 min 15 s left", "400 of 1500", "-12.0% condition number without conv_3x3"):
        assert words in shown.text
