"""JupyterLab as a reader has it, driven through Chromium: for test_browser.py and the pages of test_notebooks.py."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import nbformat
from _compilation import as_a_reader
from playwright.sync_api import Browser, Page, TimeoutError, sync_playwright

from mlkernels.runner.worker import kernel_environment

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "build" / "browser"  # left there to be looked at
TOKEN = "course"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# what a browser in a container needs, and what keeps it from asking the network for anything
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--no-first-run")
FLAGS += ("--disable-component-update", "--disable-sync")
QUIET = {"fetchNews": "false", "checkForUpdates": False}  # no dialog over the notebook, no request to the network
# a cell that runs, waits or was never run has no number; the page shows it, but not for a folded cell
ALL_RUN = """() => {
    const cells = window.jupyterapp.shell.currentWidget.content.widgets.filter(cell => cell.model.type === 'code');
    const failed = document.querySelector('[data-mime-type="application/vnd.jupyter.error"]') !== null;
    return cells.length > 0 && (failed || cells.every(cell => cell.model.executionCount !== null));
}"""
# Which of the messages that the page sends are not answered yet. (Asking the kernel something oneself would not do:
# widgets have a line of their own into it.)
LISTEN = """() => {
    const kernel = window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel;
    window.unanswered = new Set();
    kernel.anyMessage.connect((_, {msg, direction}) => {
        if (direction === 'send') { if (msg.channel === 'shell') window.unanswered.add(msg.header.msg_id); }
        else if (msg.header.msg_type === 'status' && msg.content.execution_state === 'idle')
            window.unanswered.delete(msg.parent_header.msg_id);
    });
}"""
SETTLED = """async () => {
    const frame = () => new Promise(done => requestAnimationFrame(done));
    for (let quiet = 0; quiet < 3; quiet = window.unanswered.size ? 0 : quiet + 1) await frame();
}"""


def chromium() -> str | None:
    """The browser's path, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextlib.contextmanager
def jupyterlab(folder: Path, home: Path) -> Iterator[str]:
    """JupyterLab on `folder`, with settings of its own in `home`: gives its address, stops it and its kernels."""
    settings = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps(QUIET), encoding="utf-8")
    environment = {
        **{
            name: value
            for name, value in as_a_reader(kernel_environment(ROOT)).items()
            if not name.startswith("JUPYTER")
        },
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.root_dir={folder}"]
    command += ["--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--IdentityProvider.token={TOKEN}"]
    command += ["--LabApp.expose_app_in_browser=True"]  # `settled` asks it for the kernel
    said = home / "jupyterlab.log"
    with said.open("w", encoding="utf-8") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
        )
        try:
            yield _address(server, home / "runtime", said)
        finally:
            server.send_signal(signal.SIGTERM)  # it shuts its kernels down first
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)  # kernels see that their parent is gone
                server.wait()


def _address(server: subprocess.Popen, runtime: Path, said: Path, patience: float = 180.0) -> str:
    """Where the server listens, as it writes it down once it does."""
    end = time.monotonic() + patience
    while time.monotonic() < end and server.poll() is None:
        for path in runtime.glob("jpserver-*.json"):
            with contextlib.suppress(ValueError, KeyError):  # half written
                return json.loads(path.read_text(encoding="utf-8"))["url"]
        time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not start:\n{said.read_text(encoding='utf-8')[-3000:]}")


@contextlib.contextmanager
def started(path: str) -> Iterator[Browser]:
    """A headless Chromium; one at a time in a process, says Playwright."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def new_page(browser: Browser) -> tuple[Page, list[str]]:
    """A page of a browser, and the list that its uncaught errors are put into."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(120_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    return page, errors


@contextlib.contextmanager
def browser_page(path: str) -> Iterator[tuple[Page, list[str]]]:
    """A browser with one page, and the list that the page's uncaught errors are put into."""
    with started(path) as browser:
        yield new_page(browser)


def open_notebook(page: Page, address: str, name: str) -> None:
    """Open a notebook and wait until its kernel is there."""
    page.goto(f"{address}lab/tree/{name}?token={TOKEN}&reset")  # without the notebook that was open before
    page.locator(".jp-NotebookPanel .jp-CodeCell").first.wait_for()
    wait_until_idle(page)
    page.evaluate(LISTEN)


def wait_until_idle(page: Page) -> None:
    """Wait for the status bar's word: the indicator at the notebook says idle before there is a kernel at all."""
    page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for()


def settled(page: Page) -> None:
    """Wait until the kernel has answered all that the page has asked it so far, and the page shows it."""
    page.evaluate(SETTLED)


def run_all(page: Page, minutes: float) -> None:
    """Run > Run All Cells, and wait until every code cell has run or one has failed."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    try:
        page.wait_for_function(ALL_RUN, timeout=60_000 * minutes, polling=1000)
    except TimeoutError:
        prompts = page.locator(".jp-CodeCell .jp-InputPrompt").all_text_contents()
        said = page.locator(".jp-Dialog").all_text_contents()
        raise AssertionError(f"not all cells ran in {minutes} minutes: {' '.join(prompts)} {said}") from None
    wait_until_idle(page)


def troubles(page: Page) -> list[str]:
    """What a reader would see as broken: error outputs, warnings, and widgets without a picture."""
    shown = page.locator(
        '[data-mime-type="application/vnd.jupyter.error"], [data-mime-type="application/vnd.jupyter.stderr"], '
        '.jp-OutputArea-output [role="alert"]'
    )
    found = [text.strip()[:2000] for text in shown.all_text_contents()]  # cells off the screen have no inner text
    outputs = page.locator(".jp-OutputArea").all_text_contents()
    for words in ("Error displaying widget", "model not found", "Loading widget...", "Javascript Error"):
        found += [words] * any(words.lower() in text.lower() for text in outputs)
    return found


def saved(page: Page, name: str) -> nbformat.NotebookNode:
    """A notebook that has run, as it lies on the disk once it is saved."""
    address = urljoin(page.url, f"/api/contents/{name}.ipynb?token={TOKEN}")
    said = ""
    for turn in range(120):
        if turn % 20 == 0:  # a key that comes while JupyterLab saves by itself is lost
            page.keyboard.press("Control+s")
        answer = page.request.get(address)
        if answer.ok:
            notebook = nbformat.from_dict(answer.json()["content"])
            if all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code" and cell.source):
                return notebook
        else:  # the server writes in place: amid a save it reads half a notebook, and refuses it
            said = f": {answer.status} {answer.text()[:300]}"
        page.wait_for_timeout(500)
    raise AssertionError(f"{name} was not saved{said}")


@contextlib.contextmanager
def opened(address: str, browser: Browser, path: str, minutes: float) -> Iterator[tuple[Page, list[str]]]:
    """A notebook in a tab after Run All Cells: the page, and its uncaught errors. Its kernel ends with it."""
    page, errors = new_page(browser)
    try:
        open_notebook(page, address, path)
        run_all(page, minutes=minutes)
        yield page, errors
    finally:
        for session in page.request.get(f"{address}api/sessions?token={TOKEN}").json():
            assert page.request.delete(f"{address}api/sessions/{session['id']}?token={TOKEN}").ok
        page.close()
