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
    environment.filters |= {"md": markdown_text, "code": code, "breakable": _breakable}
    return environment


def markdown_text(text: object) -> str:
    """Text as Markdown that shows exactly it: no HTML, no formula, no link, no new table cell.

    Args:
        text: anything; it is turned into one line.

    Returns:
        The text with HTML entities in place of the characters that Markdown reads.
    """
    line = html.escape(" ".join(str(text).split()), quote=False).replace('"', "&quot;")
    # GitHub makes links of addresses and www. and @, and reads what a line begins with
    line = re.sub(r"[\\`*\[\]|$~@]|:(?=//)|(?<=\bwww)\.|^[#+=-]|(?<=^\d)[.)]", _entity, line)
    # inside a word an underscore is harmless, and names are easier to read with it
    return re.sub(r"(?<!\w)_|_(?!\w)", "&#95;", line)


def _breakable(text: object) -> Any:
    """Escaped text that may be broken after an underscore, as names of experiments must be."""
    from markupsafe import Markup, escape

    return escape(text).replace("_", Markup("_<wbr>"))


def _entity(found: re.Match[str]) -> str:
    return f"&#{ord(found.group())};"


def code(text: object) -> str:
    """A name as Markdown code; names of experiments and prompts hold no backticks."""
    return f"`{str(text).replace('`', chr(39)).replace('|', '/')}`"
