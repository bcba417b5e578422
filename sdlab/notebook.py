"""What a notebook can show: widgets where somebody is there to use them, and HTML that stays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

_WIDGET = "application/vnd.jupyter.widget-view+json"


def kernel() -> Any | None:
    """Gives the kernel that runs this notebook's cells.

    Returns:
        IPython's kernel; None in a script or a terminal.
    """
    ipython = sys.modules.get("IPython")  # where it isn't imported there is no notebook
    return getattr(ipython.get_ipython(), "kernel", None) if ipython else None


def has_widgets() -> bool:
    """Whether somebody sees this notebook's widgets, and can use them.

    Returns:
        False without a notebook, without ipywidgets, and where no one sits before it (nbclient, `nbconvert
        --execute`): a cell is then run without the permission to ask for input.
    """
    running = kernel()
    if running is None or find_spec("ipywidgets") is None:
        return False
    return bool(running.get_parent("shell").get("content", {}).get("allow_stdin", False))


def bundle(html: str, text: str, widget: Any | None = None) -> dict[str, Any]:
    """What a cell shows, in all forms: GitHub and nbconvert take the HTML, where the widget isn't alive.

    Args:
        html: Shown where there is no widget.
        text: Shown in a terminal.
        widget: Of ipywidgets 7 or 8.

    Returns:
        Content by its type, for `IPython.display.display(..., raw=True)`.
    """
    shown: dict[str, Any] = {"text/plain": text, "text/html": html}
    if widget is not None:
        shown[_WIDGET] = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    return shown


def reachable(widget: Any) -> None:
    """Lets a widget that the running cell made answer while the cell runs.

    JupyterLab sends clicks to another thread of the kernel (a subshell, from ipykernel 7 on), but ipykernel
    7.4 hands them back to the thread that spoke last for the widget: the cell's own, which is busy. Where
    that is forgotten, they stay where they were sent. The cell must not change the widget afterwards.

    Args:
        widget: Made by the cell that runs.
    """
    getattr(widget.comm, "__dict__", {}).pop("_reply_subshell_id", None)


@contextmanager
def clicks() -> Iterator[Callable[[], object]]:
    """Lets widgets answer while a cell runs.

    From ipykernel 7 on, JupyterLab sends clicks to another thread of the kernel. An older kernel has to be
    told to look for them, which jupyter_ui_poll does. Without it, only interrupting the kernel stops a cell.

    Returns:
        To be called now and then while the cell runs.
    """
    if int(version("ipykernel").split(".")[0]) >= 7 or find_spec("jupyter_ui_poll") is None:
        yield lambda: None
        return
    from jupyter_ui_poll import ui_events

    with ui_events() as poll:
        yield lambda: poll(10)
