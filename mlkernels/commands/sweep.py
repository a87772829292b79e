"""mlkernels sweep: a notebook over a grid of its parameters."""

from __future__ import annotations

import signal

import click

from mlkernels.commands.options import FOLDER, notebooks_option, say, shorter_path
from mlkernels.errors import bad_input
from mlkernels.support import provenance
from mlkernels.support.files import alone


@click.command()
@click.argument("name", metavar="NAME")
@click.option(
    "--grid", "grid", multiple=True, required=True, metavar="KEY=VALUES",
    help="A parameter and its values: 1,5,20 or, as Python's range, 0:5 and 0:10:2; may be repeated.",
)  # fmt: skip
@click.option("--preset", default="quick", show_default=True, metavar="quick|class|full", help="How much is computed.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A parameter that stays; may be repeated.")
@click.option("--out", type=FOLDER, metavar="DIR", help="Where results go [build/sweep/NAME-PRESET of the checkout].")
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Points at a time, each on its cores [1].")
@click.option("--dask", metavar="ADDRESS", help="Run on the Dask cluster of this scheduler, as tcp://host:8786.")
@click.option(
    "--timeout-cell", type=click.IntRange(min=1), metavar="S", help="Seconds that a cell may take [no limit]."
)
@notebooks_option
def sweep(name, grid, preset, settings, out, jobs, dask, timeout_cell, notebooks) -> int:
    """Execute a notebook over a grid of parameters.

    NAME is the beginning of the notebook's name, such as 01. Every value is checked before anything runs. A point that
    fails is named and does not stop the others; the same command goes on where it was stopped, and runs nothing that is
    finished and unchanged.

    Leaves in DIR: sweep.json and sweep.csv, with the claims at each point, sweep.png, which shows where they hold, and
    in points/ each executed notebook and its page. One sweep at a time works there.

    Points run on this machine, or, with --dask, on a cluster whose machines see the same checkout and DIR.

    Exit status: 0 all points finished, 1 one failed, 2 bad usage, 130 stopped by Ctrl-C. A claim that does not hold at
    some points is what a sweep finds, and no failure.
    """
    from mlkernels.runner import executors
    from mlkernels.runner import sweep as runner
    from mlkernels.runner.grid import plan as planned
    from mlkernels.runner.pool import Stopped
    from mlkernels.runner.worker import tidy_cache

    if jobs and dask is not None:
        raise bad_input("--jobs", "either it or --dask", "both", "a cluster runs a point on each thread of its workers")
    if dask is not None:
        executors.check_address(dask)
    plan = planned(notebooks, name, out, preset, settings, grid)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell may have switched it off
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    command = provenance.command()
    where = executors.on_this_machine(jobs or 1) if dask is None else executors.on_cluster(dask)
    with where as (executor, slots), alone(plan.out):
        if not slots:
            say("the cluster has no workers yet: the points wait for them", err=True)
        if told := tidy_cache(plan.points[0].job.source.parents[1]):
            say(told, err=True)
        stopped = False
        try:
            outcomes = runner.run(plan, executor, slots, command=command, timeout=timeout_cell)
        except Stopped as stop:
            stopped, outcomes = True, stop.outcomes
    for outcome in outcomes:
        if outcome.detail:
            say(outcome.detail, err=True)
    here = shorter_path(plan.out)
    kept = sum(outcome.status in ("finished", "unchanged") for outcome in outcomes)
    if stopped:
        say(f"stopped; finished and kept in {here}: {kept} of {len(outcomes)} points", err=True)
        say(f"go on with: {command}", err=True)
        return 130
    say(f"{kept} of {len(outcomes)} finished; read {shorter_path(plan.out / 'sweep.png')} and sweep.csv")
    return 0 if kept == len(outcomes) else 1
