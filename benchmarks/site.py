"""How large the site is, how soon a page of it is painted from the disk, and how soon a key has moved a demo."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path
from typing import Any

from benchmarks._measure import ROOT, table
from mlkernels.errors import bad_input

SITE = ROOT / "build" / "site"
GOAL_MB, GOAL_PAINT_MS, GOAL_MOVE_MS = 60, 1000, 50
MOVES = 40  # of each demo: keys pressed, as a reader presses them
PAUSE_MS = 120  # between two of them
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
# From a key's event (its time stamp: when the browser got it) until the frame with the new picture is painted.
WATCH = """(demo) => {
  const picture = document.querySelector(`#demo-${demo} img`);
  window.taken = [];
  let pressed = null;
  document.addEventListener("keydown", (event) => { pressed = event.timeStamp; }, true);
  new MutationObserver(async () => {
    const from = pressed;
    await picture.decode().catch(() => {});
    requestAnimationFrame(() => {
      const channel = new MessageChannel();
      channel.port1.onmessage = () => window.taken.push(performance.now() - from);
      channel.port2.postMessage(0);
    });
  }).observe(picture, { attributes: true, attributeFilter: ["src"] });
}"""
# Until the equations are set, seconds on a long page, the browser has other work; a key then may wait for 0.3 s.
SET = "() => new Promise((done) => (window.MathJax ? MathJax.Hub.Queue(() => done(true)) : done(true)))"
PAINT = """() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? null"""


def moved(page: Any, demo: str) -> list[float]:
    """Milliseconds from a key to the picture, for every key that has changed it; each control goes to and fro."""
    page.evaluate(WATCH, demo)
    controls = page.locator(f"#demo-{demo} .mlk-control:not([type=radio]), #demo-{demo} .mlk-control:checked")
    for number in range(controls.count()):
        control = controls.nth(number)
        control.focus()
        for step in range(MOVES // controls.count() + 1):
            page.keyboard.press("ArrowRight" if step % 6 < 3 else "ArrowLeft")
            page.wait_for_timeout(PAUSE_MS)
    return page.evaluate("window.taken")


def measure(seed: int = 0, site: Path = SITE) -> dict:
    """The site's bytes, each page's first paint, and each demo's moves, in Chromium from files.

    Args:
        seed: nothing here is random.
        site: what `make site` has written.

    Returns:
        `settings`, `size` (megabytes by kind, goal), `pages` (name -> first paint in ms, best and median of three) and
        `demos` (name -> settings, bytes, moves, median, 95th percentile and largest of the milliseconds, met).

    Raises:
        InputError: no site, or no browser.
    """
    pages = sorted(site.glob("*.html"))
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not pages or browser_path is None:
        raise bad_input("site", "a site and Chromium", f"{len(pages)} pages, {browser_path}", "run make site first")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=list(FLAGS))
        result = measured(browser, site)
        browser.close()
    return {"settings": {"moves": MOVES, "pause_ms": PAUSE_MS, "seed": seed}, **result}


def measured(browser: Any, site: Path) -> dict:
    """`measure` in a browser that is there."""
    painted, demos = {}, {}
    for path in sorted(site.glob("*.html")):
        times, names = [], []
        for _ in range(3):
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            page.goto(path.as_uri())
            page.wait_for_function(f"({PAINT})() !== null")
            times.append(page.evaluate(PAINT))
            names = page.eval_on_selector_all(".demo", "all => all.map((demo) => demo.id.replace('demo-', ''))")
            page.close()
        painted[path.name] = {"min_ms": round(min(times), 1), "median_ms": round(statistics.median(times), 1)}
        for name in names:
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            page.goto(path.as_uri())
            page.wait_for_function("!window.MathJax || MathJax.isReady")
            page.evaluate(SET)
            page.wait_for_timeout(1000)
            demos[name] = _summary(site, name, moved(page, name))
            page.close()
    goal = {"site_mb": GOAL_MB, "first_paint_ms": GOAL_PAINT_MS, "move_95_ms": GOAL_MOVE_MS}
    return {"size": _sizes(site), "pages": painted, "demos": demos, "goal": goal}


def _summary(site: Path, name: str, times: list[float]) -> dict:
    drawn = json.loads((site / "demos" / name / "frames.json").read_text(encoding="utf-8"))
    high = statistics.quantiles(times, n=20)[-1]
    return {
        "pictures": len(drawn["frames"]) + len(drawn["runs"]),
        "bytes": drawn["bytes"],
        "moves": len(times),
        "median_ms": round(statistics.median(times), 1),
        "p95_ms": round(high, 1),
        "max_ms": round(max(times), 1),
        "met": high < GOAL_MOVE_MS,
    }


def _sizes(site: Path) -> dict:
    """Megabytes of the site, and of its parts."""
    files = {path: path.stat().st_size for path in site.rglob("*") if path.is_file()}
    parts: dict[str, int] = {}
    for path, size in files.items():
        inside = path.relative_to(site).parts
        parts[inside[0] if len(inside) > 1 else "pages"] = (
            parts.get(inside[0] if len(inside) > 1 else "pages", 0) + size
        )
    total = sum(files.values())
    return {
        "total_mb": round(total / 1e6, 2),
        "parts_mb": {name: round(size / 1e6, 2) for name, size in sorted(parts.items())},
        "files": len(files),
        "met": total < 1e6 * GOAL_MB,
    }


def report(result: dict) -> str:
    """The result for people."""
    size = result["size"]
    parts = ", ".join(f"{name} {mb}" for name, mb in size["parts_mb"].items())
    rows = [["demo", "pictures", "MB", "moves", "median ms", "95 % ms", "max ms", "met"]]
    for name, found in result["demos"].items():
        times = [f"{found[kind]:.1f}" for kind in ("median_ms", "p95_ms", "max_ms")]
        counts = [str(found["pictures"]), f"{found['bytes'] / 1e6:.2f}", str(found["moves"])]
        rows.append([name, *counts, *times, "yes" if found["met"] else "NO"])
    paint = [["page", "first paint, min ms", "median ms"]]
    paint += [[name, str(found["min_ms"]), str(found["median_ms"])] for name, found in result["pages"].items()]
    met = "met" if size["met"] else "NOT met"
    total = f"{size['total_mb']} MB in {size['files']} files ({parts}); goal {GOAL_MB}: {met}"
    return "\n\n".join([total, table(rows), table(paint)])
