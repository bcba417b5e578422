"""JupyterLab on this machine in a real browser: what the browser tests share."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).parent.parent
SCREENSHOTS = ROOT / "results" / "screenshots"  # not in git; CI keeps them
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDE, NARROW = 1280, 390  # pixels: a laptop, a phone

_SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},  # cells out of sight are there too
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}
# Elements that reach over the right edge of their output and that no scroll area of their own holds.
_TOO_WIDE = """() => [...document.querySelectorAll('.jp-OutputArea-output')].flatMap(output => {
    const edge = output.getBoundingClientRect().right + 1;
    const right = element => element.getBoundingClientRect().right;
    const scrolls = element => ['auto', 'scroll'].includes(getComputedStyle(element).overflowX);
    const held = element => {
        while ((element = element.parentElement) !== output)
            if (scrolls(element) && right(element) <= edge) return true;
        return false;
    };
    return [...output.querySelectorAll('*')].filter(element => right(element) > edge && !held(element))
        .map(element => element.outerHTML.slice(0, 120));
})"""


@dataclass
class Server:
    """JupyterLab, its folder, and how to get at it."""

    folder: Path
    port: int
    token: str

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/doc/tree/{name}?token={self.token}&reset"


@contextmanager
def jupyterlab(folder: Path) -> Iterator[Server]:
    """Starts JupyterLab on loopback with settings of its own, and ends it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = Server(folder / "work", free.getsockname()[1], secrets.token_hex(16))
    server.folder.mkdir(parents=True)
    for name, values in _SETTINGS.items():
        file = folder / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    places = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environment = os.environ | {place: str(folder / place.lower()) for place in places}
    environment |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "PYTHONPATH": str(ROOT)}
    environment |= {"JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={server.port}", "--ServerApp.port_retries=0"]
    command += [f"--IdentityProvider.token={server.token}", f"--ServerApp.root_dir={server.folder}"]
    command += ["--LabApp.expose_app_in_browser=True"]
    with open(folder / "jupyterlab.log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=server.folder)
    try:
        _wait_for(server, process, folder / "jupyterlab.log")
        yield server
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_for(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/api?token={server.token}", timeout=2)
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


@dataclass
class Opened:
    """A notebook in the browser, with what the console said."""

    page: Any
    errors: list[str] = field(default_factory=list)

    def run_all(self) -> None:
        """Starts all cells; `wait` waits for their end."""
        self.page.wait_for_function("jupyterapp.shell.currentWidget?.sessionContext", timeout=60_000)
        self.page.evaluate("async () => { await jupyterapp.shell.currentWidget.sessionContext.ready }")
        self.page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells') }")

    def wait(self, seconds: float = 60) -> None:
        """Waits until every code cell has a number before it.

        Raises:
            AssertionError: a cell raised an error; the message is its traceback.
        """
        error = "[data-mime-type='application/vnd.jupyter.error']"
        ended = f"""() => document.querySelector("{error}")
            || [...document.querySelectorAll('.jp-CodeCell')].every(cell =>
            /\\[\\d+\\]/.test(cell.querySelector('.jp-InputPrompt').textContent))"""
        self.page.wait_for_function(ended, timeout=1000 * seconds)
        assert not self.page.locator(error).count(), self.page.locator(error).first.inner_text()

    def output(self, cell: int) -> Any:
        """The output area of a code cell, counted from 0."""
        return self.page.locator(".jp-CodeCell").nth(cell).locator(".jp-Cell-outputArea")

    def resize(self, width: int, height: int = 900) -> None:
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.wait_for_timeout(400)  # JupyterLab lays itself out after the window

    def too_wide(self) -> list[str]:
        """What reaches over the page's right edge without a scroll area of its own."""
        return list(self.page.evaluate(_TOO_WIDE))

    def whole(self, name: str, width: int) -> None:
        """Takes a screenshot of all cells, however long the notebook is, and leaves the window so large."""
        self.resize(width)
        outer = "document.querySelector('.jp-WindowedPanel-outer').scrollHeight"
        self.resize(width, min(self.page.evaluate(outer) + 200, 16_000))
        self.screenshot(name)

    def screenshot(self, name: str, target: Any | None = None) -> bytes:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        taken = (target or self.page).screenshot(path=SCREENSHOTS / f"{name}.png")
        return bytes(taken)


@contextmanager
def opened(browser: Any, server: Server, notebook: Path | list[str], width: int = WIDE) -> Iterator[Opened]:
    """Opens a notebook, or one made of these cells; its kernel is ended afterwards."""
    if isinstance(notebook, Path):
        name = f"{notebook.parent.name}/{notebook.name}"  # its links go to ../docs
        shutil.copytree(notebook.parent, server.folder / notebook.parent.name, dirs_exist_ok=True)
        shutil.copytree(notebook.parent.parent / "docs", server.folder / "docs", dirs_exist_ok=True)
    else:
        name = f"{secrets.token_hex(4)}.ipynb"
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in notebook])
        made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(made, server.folder / name)
    context = browser.new_context(viewport={"width": width, "height": 900})
    one = Opened(context.new_page())
    one.page.on("pageerror", lambda error: one.errors.append(f"script error: {error}"))
    one.page.on("console", _listener(one.errors))
    try:
        one.page.goto(server.url(name))
        one.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        one.page.wait_for_timeout(1000)  # pictures are decoded, late scripts have run
        yield one
    finally:
        one.page.evaluate("jupyterapp.serviceManager.sessions.shutdownAll()")
        context.close()


def _listener(errors: list[str]) -> Callable[[Any], None]:
    def listen(message: Any) -> None:
        if message.type == "error":
            errors.append(message.text)

    return listen
