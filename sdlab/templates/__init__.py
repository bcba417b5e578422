"""Jinja2 templates; every text that goes into one is escaped."""

from __future__ import annotations

import html
import re
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """Fill a template of this folder.

    Args:
        template: file name, such as "table.html".
        values: what the template names.

    Returns:
        The text. Values are HTML-escaped in .html templates; .md templates escape by the filter `md`.
    """
    return _environment(template.endswith(".html")).get_template(template).render(**values)


@cache
def _environment(escaped: bool) -> Environment:
    """Keeps the templates that it has read: the panel of a training is drawn once a second."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sdlab", "templates"),
        autoescape=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"md": markdown_text, "code": code}
    return environment


def markdown_text(text: object) -> str:
    """Text as Markdown that shows exactly it: no HTML, no formula, no link, no new table cell.

    Args:
        text: anything; it is turned into one line.

    Returns:
        The text with HTML entities in place of the characters that Markdown reads.
    """
    line = html.escape(" ".join(str(text).split()), quote=True)
    line = re.sub(r"[\\`*\[\]|$~]", lambda found: f"&#{ord(found.group())};", line)
    # inside a word an underscore is harmless, and names are easier to read with it
    return re.sub(r"(?<!\w)_|_(?!\w)", "&#95;", line)


def code(text: object) -> str:
    """A name as Markdown code; names of experiments and prompts hold no backticks."""
    return f"`{str(text).replace('`', chr(39)).replace('|', '/')}`"
