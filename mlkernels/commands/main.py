"""The command line: mlkernels run | sweep | site | lab | export | data | nas | check. Commands import what is heavy."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import click

import mlkernels
from mlkernels.commands import stopping
from mlkernels.commands.data import data as data_group
from mlkernels.commands.export import export
from mlkernels.commands.nas import nas as nas_group
from mlkernels.commands.options import FOLDER, notebooks_option, say, shorter_path
from mlkernels.commands.site import site
from mlkernels.commands.sweep import sweep
from mlkernels.errors import InputError, is_of_memory, one_line
from mlkernels.support import provenance
from mlkernels.support.files import alone, is_of_a_place, not_written

_LONGEST = 4000  # characters of a refusal
_SMALLER = "choose a smaller network or batch, or a machine that has more; what was kept stays"
_TREE = "\b\nThe package, from the ground up:\n" + mlkernels.__doc__.partition(":\n\n")[2]


class _Stoppable(click.Group):
    """A group whose stopped commands are not click's to tell of: it would put an empty line first."""

    def invoke(self, ctx: click.Context):
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
            raise click.exceptions.Exit(stopping.status()) from None


@click.group(
    "mlkernels",
    cls=_Stoppable,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=_TREE,
)
@click.version_option(mlkernels.__version__, prog_name="mlkernels")
def cli() -> None:
    """A course on the theory of few-shot meta-learning: run its notebooks, read them, get data, check the set-up."""


cli.add_command(data_group)
cli.add_command(nas_group)
cli.add_command(site)
cli.add_command(sweep)
cli.add_command(export)


@cli.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--preset", default="quick", show_default=True, metavar="quick|class|full", help="How much is computed.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A notebook's parameter; may be repeated.")
@click.option("--out", type=FOLDER, metavar="DIR", help="Where the results go [build/<preset> of the checkout].")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Notebooks at a time.")
@click.option(
    "--timeout-cell", type=click.IntRange(min=1), metavar="S", help="Seconds that a cell may take [no limit]."
)
@click.option("--resume", is_flag=True, help="Skip notebooks that are finished and unchanged.")
@notebooks_option
def run(names, preset, settings, out, jobs, timeout_cell, resume, notebooks) -> int:
    """Execute notebooks, render them, gather claims.

    NAME is the beginning of a notebook's name, such as 01; without it, all of them run.

    Leaves in DIR: each executed notebook and its page, claims.json, and index.html, which shows them all. One run at a
    time works there. Paths, those of --set too, are from the current folder.

    Exit status: 0 all finished and no claim failed, 1 a notebook or a claim failed, 2 bad usage or no room for results,
    130 stopped by Ctrl-C, 143 by a polite kill.
    """
    from mlkernels.runner import pool, report
    from mlkernels.runner.jobs import plan
    from mlkernels.runner.worker import tidy_cache

    work, out = plan(notebooks, names, out, preset, settings)
    command = provenance.command()
    with alone(out):
        if told := tidy_cache(work[0].source.parents[1]):
            say(told, err=True)
        stopped = False
        try:
            outcomes = pool.run(work, workers=jobs, timeout=timeout_cell, resume=resume)
        except pool.Stopped as stop:
            stopped, outcomes = True, stop.outcomes
        for outcome in outcomes:
            if outcome.detail:
                say(outcome.detail, err=True)
        result = report.write_report(out, preset=preset, command=command)
    kept = [outcome.name for outcome in outcomes if outcome.status in ("finished", "unchanged")]
    if stopped:
        say(f"stopped; finished and kept in {shorter_path(out)}: {', '.join(kept) or 'none'}", err=True)
        say(f"go on with: {command}{'' if resume else ' --resume'}", err=True)
        return stopping.status()
    for name in report.touched_in(out):
        say(f"{name}: edited since its run, or cut; its claims are left out until it runs again", err=True)
    fallen = [c for c in report.broken(result["claims"]) if c["notebook"] in kept]
    for claim in fallen:
        numbers = f"expected {claim['expected']}, measured {claim['measured']}"
        say(f"{claim['notebook']}: claim {claim['id']} does not hold: {numbers}", err=True)
    say(f"{len(kept)} of {len(outcomes)} finished; read {shorter_path(out / 'index.html')}")
    return 1 if fallen or len(kept) < len(outcomes) else 0


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("name", required=False)
@click.argument("extra", nargs=-1, type=click.UNPROCESSED, metavar="[-- JUPYTERLAB OPTIONS]")
@notebooks_option
def lab(name, extra, notebooks) -> None:
    """Open JupyterLab on a notebook.

    NAME is the beginning of its name; without it, the first one. What follows -- goes to JupyterLab.
    """
    from mlkernels.runner.notebooks import choose_notebooks, find_notebooks
    from mlkernels.runner.worker import kernel_environment, tidy_cache

    if name and name.startswith("-"):
        name, extra = None, (name, *extra)
    found = find_notebooks(notebooks)
    path = next(iter(choose_notebooks(found, [name] if name else []).values()))
    if told := tidy_cache(path.resolve().parents[1]):
        say(told, err=True)
    sys.stdout.flush()
    command = [sys.executable, "-m", "jupyterlab", str(path), *extra]
    environment = kernel_environment(path.resolve().parents[1])
    # defaults of ours, below the user's own settings: no question about news over the first notebook
    paths = [str(Path(__file__).with_name("jupyter")), environment.get("JUPYTER_CONFIG_PATH", "")]
    environment["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, paths))
    os.execve(sys.executable, command, environment)


@cli.command()
def check() -> int:
    """Print versions, devices and data.

    Exit status 1 if anything is wrong, with a line for each remedy.
    """
    from mlkernels.course.installation import check as look
    from mlkernels.course.installation import check_cache
    from mlkernels.runner.notebooks import find_notebooks
    from mlkernels.runner.worker import kernel_environment

    findings = look()
    with contextlib.suppress(InputError):  # no notebooks here, so that nothing is kept for them
        root = next(iter(find_notebooks(None).values())).parents[1]
        findings.append(check_cache(Path(kernel_environment(root)["JAX_COMPILATION_CACHE_DIR"])))
    for finding in findings:
        say(str(finding))
    wrong = [finding for finding in findings if not finding.ok]
    for finding in wrong:
        say(f"{finding.name}: {finding.remedy}", err=True)
    if not wrong:
        say("all is well")
    return 1 if wrong else 0


def _named(command: click.Command, arguments: list[str]) -> str:
    """The words of the command, in a group or in one of a group, that arguments begin with."""
    words = [command.name]
    for word in arguments:
        command = command.commands.get(word) if isinstance(command, click.Group) else None
        if command is None:
            break
        words.append(word)
    return " ".join(words)


def main(arguments: list[str] | None = None, command: click.Command = cli) -> None:
    """The entry point: runs a command and leaves with its status; bad usage is one line and status 2.

    Args:
        arguments: of the command line; sys.argv[1:] where None.
        command: with its name; a tool of the makers takes this way out, too.
    """
    if data := os.environ.get("MLKERNELS_DATA"):  # kernels run in the notebooks' folder: a relative path would move
        parts = [os.path.abspath(os.path.expanduser(part.strip())) for part in data.split(os.pathsep) if part.strip()]
        os.environ["MLKERNELS_DATA"] = os.pathsep.join(parts)
    if (cache := os.environ.get("JAX_COMPILATION_CACHE_DIR")) and "://" not in cache:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.abspath(cache)
    name, said, status = command.name, None, 2
    try:
        with stopping.listening():
            status = command.main(arguments, prog_name=name, standalone_mode=False)
    except InputError as error:
        said = f"{name}: {error}"
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
    except click.ClickException as error:
        own = _named(command, sys.argv[1:] if arguments is None else arguments)
        said, status = f"{name}: {error.format_message().rstrip('. ')}; see {own} --help", error.exit_code
    except (KeyboardInterrupt, click.Abort):
        said, status = "stopped", stopping.status()
    except OSError as error:  # a disk may be full, or a place taken, long after it was looked at
        if not is_of_a_place(error):
            raise
        said = f"{name}: {not_written(Path(error.filename or 'a file'), error)}"
    except (MemoryError, RuntimeError) as error:  # an estimate is of what is sure to be needed
        if not is_of_memory(error):
            raise
        said = f"{name}: memory: expected enough of it, got {one_line(error) or 'no more'}; {_SMALLER}"
    if said is not None:
        say(one_line(said, _LONGEST), err=True)
    sys.exit(status or 0)
