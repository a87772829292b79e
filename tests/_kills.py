"""Commands that are killed at moments which a seed draws, aimed at what they write.

`python _kills.py` has imported everything that commands do, and forks one for each request: to start takes longer than
all that is looked at. What a command makes is told by `RESULTS`, without times and other things that differ each time.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from _moment import Moment, Watch

HERE = Path(__file__).parent
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
SPEAKS = {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}
GENOTYPE = "N: sk<0 m3<1 R: sk<0 m3<1"
SMALL = ["--data", "glyphs", "--space", "tiny", "--cells", "2", "--channels", "2", "--pixels", "8"]
LATER = 0.004  # seconds after a write began, at most


class Ended(NamedTuple):
    """A command's exit status (below 0 the signal that it died of), its writes, and what it said."""

    status: int
    writes: int
    said: str


class Commands:
    """Runs commands, each in a process of its own that is forked from one that has imported what they need.

    Args:
        home: what they read: `copy` of miniImageNet, `notebooks`, the `trained` network.
        works: those of `RESULTS` that will be asked for; all where None.
    """

    def __init__(self, home: Path, works: Sequence[str] | None = None):
        line = [sys.executable, str(HERE / "_kills.py"), str(home), *(works or RESULTS)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
        self.home = home
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def run(
        self, work: str, folder: Path, moment: Moment | None = None, in_worker: bool = False, limit: int | None = None
    ) -> Ended:
        """Run one that writes to a folder; killed at a moment, or where no file may have more than `limit` bytes."""
        print(json.dumps([work, str(folder), moment, in_worker, limit]), file=self.process.stdin, flush=True)
        return Ended(*json.loads(self.process.stdout.readline()))

    def __enter__(self) -> Commands:
        return self

    def __exit__(self, *_) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def home_of(home: Path) -> Path:
    """A folder with what the commands read, but for the trained network, which takes a training."""
    import nbformat
    import numpy as np
    from _pictures import picture
    from _python2 import write_pickle
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    from mlkernels.datasets.importing.recipe import SPLITS
    from mlkernels.datasets.miniimagenet.classes import classes

    (home / "copy").mkdir()
    for split in SPLITS:  # miniImageNet in form A with one image a class
        names = [name for name, about in classes().items() if about[0] == split]
        images = np.stack([picture(list(classes()).index(name), 0) for name in names])
        rows = {name: [row] for row, name in enumerate(names)}
        file = f"mini-imagenet-cache-{'validation' if split == 'val' else split}.pkl"
        write_pickle(home / "copy" / file, {"image_data": images, "class_dict": rows}, python=2)
    (home / "notebooks").mkdir()
    for name in ("00_a", "01_b"):
        parameters = new_code_cell('preset: str = "quick"\nseed: int = 3', metadata={"tags": ["parameters"]})
        cells = [new_markdown_cell(f"# Notebook {name}"), parameters, new_code_cell("print(seed)")]
        for number, cell in enumerate(cells):
            cell["id"] = f"cell-{number}"
        nbformat.write(new_notebook(cells=cells), home / "notebooks" / f"{name}.ipynb")
    return home


def killed(commands: Commands, work: str, seed: int, kills: int = 5) -> int:
    """Kill a command again and again in one folder, then let it end: as often as it died, if all is as unbroken.

    Its folder holds the same files then, so none of those that were killed has left one, and a stop by Ctrl-C or a
    polite kill has said so in one line.
    """
    whole = unbroken(commands, work)
    ended = None
    writes, drawn, count = json.loads(whole.with_suffix(".json").read_text()), random.Random(f"{work} {seed}"), 0
    folder = commands.home / f"{work}-{seed}"
    for _ in range(kills):
        if ended is not None and not ended.status:
            shutil.rmtree(folder)  # it had less left to write, and has ended: begin anew
        number = drawn.choice(SIGNALS)
        later = drawn.choice([0.0, drawn.uniform(0, LATER)])
        in_worker = work in ("run", "sweep") and number == signal.SIGKILL and drawn.random() < 0.5
        ended = commands.run(work, folder, Moment(number, drawn.randint(1, writes), later), in_worker)
        if in_worker:
            assert ended.status in (0, 1), ended.said  # the runner lives, and says that the notebook failed
            count += ended.status
            continue
        assert ended.status in (0, SPEAKS[number]), ended.said  # 0 where less was left to write
        count += ended.status != 0
        if ended.status > 0:
            assert "Traceback" not in ended.said, ended.said
            assert ended.said.count("stopped") == 1, ended.said
    ended = commands.run(work, folder)
    assert ended.status == 0, ended.said
    assert names(folder) == names(whole), ended.said
    assert RESULTS[work](folder) == RESULTS[work](whole)
    return count


def unbroken(commands: Commands, work: str) -> Path:
    """The folder of a command that was let be; beside it, how many writes that took."""
    whole = commands.home / f"{work}-whole"
    if not whole.exists():
        ended = commands.run(work, whole)
        assert ended.status == 0, ended.said
        whole.with_suffix(".json").write_text(json.dumps(ended.writes))
    return whole


def trained(commands: Commands) -> None:
    """The network that `evaluate` reads."""
    if not (commands.home / "trained").exists():
        ended = commands.run("train", commands.home / "trained")
        assert ended.status == 0, ended.said


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# --- what a command makes ---------------------------------------------------------------------------------------------

_TIMES = ("id", "created", "command", "seconds", "images_per_second", "started", "wall_seconds", "source")
_TIMES += ("papermill", "execution", "sha256", "fingerprint", "source_sha256")


def _plain(value):
    """JSON without what differs each time."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key not in _TIMES}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _json(path: Path):
    return (
        [_plain(json.loads(line)) for line in path.read_text().splitlines()]
        if path.suffix == ".jsonl"
        else _plain(json.loads(path.read_text()))
    )


def _arrays(path: Path) -> dict:
    import numpy as np

    with np.load(path) as file:
        found = {name: file[name].tolist() for name in file.files if not name.startswith(("seen", "sha256"))}
    if np.ndim(found["losses"]) == 2:
        found["losses"] = [row[:4] for row in found["losses"]]  # then times
    return found


def _files(folder: Path, pattern: str = "*") -> dict:
    return {
        path.relative_to(folder).as_posix(): _json(path) if path.suffix == ".json" else path.read_bytes()
        for path in folder.rglob(pattern)
        if path.is_file()
    }


def _notebooks(folder: Path) -> dict:
    return {path.name: _json(path)["cells"] for path in sorted(folder.rglob("*.ipynb"))}


RESULTS: dict[str, Callable[[Path], object]] = {
    "search": lambda folder: [_json(folder / name) for name in ("result.json", "log.jsonl", "state.json")],
    "train": lambda folder: [_arrays(folder / "checkpoint.npz"), _json(folder / "log.jsonl")],
    "evaluate": lambda folder: _json(folder / "found.json"),
    "compare": lambda folder: _json(folder / "found.json"),
    "get": lambda folder: _files(folder),
    "export": lambda folder: _files(folder),
    "fit": lambda folder: _arrays(folder / "run.npz"),
    "frames": lambda folder: _files(folder),
    "run": _notebooks,
    "sweep": lambda folder: (_notebooks(folder), re.sub(r"finished,,[^,]*", "", (folder / "sweep.csv").read_text())),
}


IMPORTS = {
    "search": "mlkernels.nas.searching.estimate mlkernels.commands.main",
    "train": "mlkernels.nas.training.train mlkernels.commands.main",
    "evaluate": "mlkernels.nas.evaluation.evaluate mlkernels.commands.main",
    "compare": "mlkernels.nas.evaluation.compare mlkernels.commands.main",
    "get": "mlkernels.datasets.importing.get mlkernels.datasets.equal_pixels mlkernels.commands.main",
    "export": "mlkernels.runner.editions.folder mlkernels.commands.main",
    "fit": "optax mlkernels.learners.maml mlkernels.networks mlkernels.tasks",
    "frames": "_site mlkernels.course.demos.start_here mlkernels.runner.site_frames",
    "run": "mlkernels.runner.pool mlkernels.runner.report mlkernels.commands.main",
    "sweep": "mlkernels.runner.sweep mlkernels.course.plots.verdicts mlkernels.commands.main",
}

# --- the process that forks -------------------------------------------------------------------------------------------


HOME = Path(sys.argv[1]) if __name__ == "__main__" else None


def _mlkernels(*arguments) -> None:
    from mlkernels.commands import main

    main.main([str(argument) for argument in arguments])


def _as_a_command(work: Callable[[], object]) -> None:
    """A part of a command, or of a notebook, with the way out that commands take."""
    from mlkernels.commands import main

    main.main([], main._Stoppable("mlkernels", invoke_without_command=True, callback=lambda: work() and None))


def _search(folder: Path) -> None:
    _mlkernels("nas", "search", *SMALL, "--repeats", "1", "--no-regions", "--out", folder)


def _train(folder: Path) -> None:
    _mlkernels("nas", "train", GENOTYPE, *SMALL, "--epochs", "3", "--batch", "50", "--out", folder)


def _evaluate(folder: Path) -> None:
    few = ["--data", "glyphs", "--queries", "5", "--episodes", "5", "--copies", "0", "--method", "centroid"]
    _mlkernels("nas", "evaluate", HOME / "trained", *few, "--out", folder / "found.json")


def _compare(folder: Path) -> None:
    from mlkernels.nas.scores import training_free

    scores, check = training_free.training_free_scores, training_free.check_scoring

    def few_images(settings):
        return replace(settings, region_images=40)

    training_free.check_scoring = lambda dataset, settings: check(dataset, few_images(settings))
    training_free.training_free_scores = lambda genotypes, dataset, settings, **more: scores(
        genotypes, dataset, few_images(settings), **more
    )
    few = ["--data", "glyphs", "--count", "3", "--cells", "2", "--channels", "4", "--pixels", "8", "--episodes", "5"]
    _mlkernels("nas", "compare", *few, "--out", folder / "found.json")


def _get(folder: Path) -> None:
    from mlkernels.datasets import folders

    folder.mkdir(exist_ok=True)
    folders.cache = lambda: folder
    os.environ.pop("MLKERNELS_DATA", None)
    _mlkernels("data", "get", "miniimagenet", "--from", HOME / "copy", "--accept-licence")


def _export(folder: Path) -> None:
    _mlkernels("export", "student", "00", "01", "--notebooks", HERE.parent / "notebooks", "--out", folder / "out")


def _fit(folder: Path) -> None:
    import jax
    import optax

    from mlkernels import networks, tasks
    from mlkernels.inner_loop.settings import InnerLoop
    from mlkernels.learners import maml

    batch = tasks.sinusoid(tasks=2, support=3, queries=3, key=jax.random.key(0))
    network = networks.MLP(width=8)
    params = network.init(jax.random.key(1), (1,))
    told = {"steps": 12, "chunk": 2, "checkpoint": folder / "run.npz", "checkpoint_every": 2}
    _as_a_command(lambda: maml.fit(network.apply, params, batch, InnerLoop(0.01, 2), optax.sgd(1e-3), **told))


def _frames(folder: Path) -> None:
    import jax
    from _site import GRIDS

    from mlkernels.course.demos import start_here
    from mlkernels.runner.site_frames import frames

    jax.config.update("jax_enable_x64", True)
    _as_a_command(lambda: frames(start_here.DEMO, folder / "out", GRIDS["start_here"]))


def _run(folder: Path) -> None:
    _mlkernels("run", "--notebooks", HOME / "notebooks", "--out", folder, "--resume")


def _sweep(folder: Path) -> None:
    _mlkernels("sweep", "00", "--grid", "seed=0:2", "--notebooks", HOME / "notebooks", "--out", folder)


def _prepare(works: Sequence[str]) -> None:
    """Import what the commands import, and make the data small; no backend may start before a fork."""
    for name in sorted({module for work in works for module in IMPORTS.get(work, "mlkernels.commands.main").split()}):
        import_module(name)
    warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called")
    if not {"search", "train", "evaluate", "compare"} & set(works):
        return
    from mlkernels import datasets
    from mlkernels.nas.space import search_space

    search_space.SPACES["tiny"] = search_space.Space("tiny", ("skip_connect", "max_pool_3x3"), 1)
    few, load = datasets.load("glyphs", classes=24, drawings=16), datasets.load
    datasets.load = lambda name, **how: few if name == "glyphs" else load(name, **how)


def _child(work: str, folder: Path, moment, in_worker: bool, limit: int | None, told: int) -> None:
    """What the fork does; the number of writes goes to `told`, for all that was not killed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    if in_worker:
        os.environ["KILL_WORKER"] = json.dumps([str(folder), moment])
        os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE / "_killer"), os.environ["PYTHONPATH"]])
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    watch = Watch(str(folder), Moment(*moment) if moment and not in_worker else None)
    try:
        globals()[f"_{work}"](folder)
        status = 0
    except SystemExit as leaving:
        status = leaving.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 70
    os.write(told, str(watch.count).encode())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    _prepare(sys.argv[2:])
    for line in requests:
        work, folder, moment, in_worker, limit = json.loads(line)
        (reads, told), (hears, says) = os.pipe(), os.pipe()
        child = os.fork()
        if not child:
            os.dup2(says, 1)
            os.dup2(says, 2)
            os.close(says)  # pipes, which no limit on files is for
            _child(work, Path(folder), moment, in_worker, limit, told)
        os.close(told)
        os.close(says)
        with os.fdopen(hears, errors="replace") as said, os.fdopen(reads) as writes:
            words, count = said.read(), int(writes.read() or "0")
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps([status, count, words]), file=answers, flush=True)


if __name__ == "__main__":
    main()
