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
    """The IPython kernel that runs this notebook's cells; None in a script or a terminal."""
    ipython = sys.modules.get("IPython")  # where it isn't imported there is no notebook
    return getattr(ipython.get_ipython(), "kernel", None) if ipython else None


def has_widgets() -> bool:
    """Whether somebody sees this notebook's widgets, and can use them.

    Where no one sits before it (nbclient, `nbconvert --execute`), a cell is run without the permission to ask
    for input.
    """
    running = kernel()
    if running is None or find_spec("ipywidgets") is None:
        return False
    return bool(running.get_parent("shell").get("content", {}).get("allow_stdin", False))


def bundle(html: str, text: str, widget: Any | None = None) -> dict[str, Any]:
    """What a cell shows, in all forms: GitHub and nbconvert take the HTML, where the widget isn't alive."""
    shown: dict[str, Any] = {"text/plain": text, "text/html": html}
    if widget is not None:
        shown[_WIDGET] = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    return shown


def reachable(widget: Any) -> None:
    """Lets a widget that the running cell made answer while the cell runs; the cell must not change it then.

    JupyterLab sends clicks to another thread of the kernel (a subshell, from ipykernel 7 on), but ipykernel
    7.4 hands them back to the thread that spoke last for the widget: the cell's own, which is busy. Where
    that is forgotten, they stay where they were sent.
    """
    getattr(widget.comm, "__dict__", {}).pop("_reply_subshell_id", None)


@contextmanager
def clicks() -> Iterator[Callable[[], object]]:
    """Lets widgets answer while a cell runs; gives what is to be called now and then meanwhile.

    An ipykernel before 7 has to be told to look for clicks, which jupyter_ui_poll does. Without it, only
    interrupting the kernel stops a cell.
    """
    if int(version("ipykernel").split(".")[0]) >= 7 or find_spec("jupyter_ui_poll") is None:
        yield lambda: None
        return
    from jupyter_ui_poll import ui_events

    with ui_events() as poll:
        yield lambda: poll(10)
