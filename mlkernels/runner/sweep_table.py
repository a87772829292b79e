"""What a sweep found: the claims at each of its points, as JSON, as CSV and as a picture."""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Callable

from mlkernels.runner.grid import Plan, text_of
from mlkernels.runner.jobs import Outcome
from mlkernels.support import results
from mlkernels.support.files import write_atomically
from mlkernels.support.strict_json import dumps

_SHARE = 20  # at most one part in so many of a sweep's time goes into its table
_OPEN = "not finished"
_TOLD = ("id", "statement", "source", "expected", "measured", "verdict", "why", "expected_to_hold", "values")
_COLUMNS = ("status", "failure", "seconds", "claim", "verdict", "expected", "measured", "expected_to_hold", "values")


class SweepTable:
    """The table of a plan's points, kept in its folder as sweep.json, sweep.csv and sweep.png."""

    def __init__(self, plan: Plan, command: str):
        self.plan, self.command = plan, command
        self.rows = [
            {"parameters": point.values, "status": _OPEN, "failure": "", "claims": []} for point in plan.points
        ]
        self.place = {point.job.name: number for number, point in enumerate(plan.points)}
        self.origin = {}
        self._writers = [_Seldom(self._write_numbers), _Seldom(self._write_picture)]

    def add(self, outcome: Outcome, claims: list[dict]) -> None:
        """What became of a point."""
        number = self.place[outcome.name]
        row, record = self.rows[number], outcome.record or {}
        status = {"finished": "finished", "unchanged": "finished", "failed": "failed"}.get(outcome.status, _OPEN)
        row |= {"status": status, "failure": outcome.detail.removeprefix(f"{outcome.name}: ")}
        if record:
            target = self.plan.points[number].job.target
            row |= {name: record[name] for name in ("seed", "started", "device", "fingerprint")}
            row |= {"seconds": record["wall_seconds"], "notebook": target.relative_to(self.plan.out).as_posix()}
            self.origin = max(self.origin, record, key=lambda each: each.get("started", ""))
        row["claims"] = [{name: claim[name] for name in _TOLD if name in claim} for claim in claims]

    def save(self, at_once: bool = False) -> None:
        """Write what there is: now, or if writing has not taken too much of the time."""
        for write in self._writers:
            write(at_once)

    def _write_numbers(self) -> None:
        content = {
            "notebook": self.plan.notebook,
            "preset": self.plan.preset,
            "grid": self.plan.axes,
            "settings": self.plan.settings,
            "counts": Counter(row["status"] for row in self.rows),
            "points": self.rows,
        }
        origin = {name: self.origin[name] for name in ("versions", "device") if name in self.origin}
        results.save(self.plan.out / "sweep.json", origin | content, command=self.command)
        write_atomically(self.plan.out / "sweep.csv", self._csv())

    def _csv(self) -> str:
        """A line a point and claim; one with an empty claim for a point that has none."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*self.plan.axes, *_COLUMNS])
        for row in self.rows:
            values = [text_of(value) for value in row["parameters"].values()]
            values += [row["status"], row["failure"], row.get("seconds", "")]
            for claim in row["claims"] or [{}]:
                told = {"claim": claim["id"], **claim, "values": dumps(claim["values"])} if claim else {}
                writer.writerow([*values, *(text_of(told.get(name, "")) for name in _COLUMNS[3:])])
        return stream.getvalue()

    def _write_picture(self) -> None:
        from mlkernels.course.plots import to_png
        from mlkernels.course.plots.verdicts import verdict_map

        plan = self.plan
        ids = dict.fromkeys(claim["id"] for row in self.rows for claim in row["claims"])
        signs: dict[str, list[str]] = {name: [] for name in ids or ["no claim"]}
        for row in self.rows:
            found = {claim["id"]: claim["verdict"] for claim in row["claims"]}
            for name, verdicts in signs.items():  # of a point that failed that is shown, and no claim from before
                verdicts.append(found.get(name, "") if row["status"] == "finished" else row["status"])
        columns = {key: [text_of(row["parameters"][key]) for row in self.rows] for key in plan.axes}
        figure = verdict_map(columns, signs, title=f"{plan.notebook}, preset {plan.preset}")
        write_atomically(plan.out / "sweep.png", to_png(figure))


class _Seldom:
    """Does something so seldom that it takes a small part of the time."""

    def __init__(self, work: Callable[[], None]):
        self.work, self.next = work, 0.0

    def __call__(self, at_once: bool) -> None:
        start = time.monotonic()
        if at_once or start >= self.next:
            self.work()
            end = time.monotonic()
            self.next = end + _SHARE * (end - start)
