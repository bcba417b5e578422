"""Jinja2 templates; every text that goes into one is escaped."""

from __future__ import annotations

import html
import re
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """Fills a template of this folder; .html templates escape by themselves, .md ones by the filter `md`."""
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
        extensions=["jinja2.ext.do"],
    )
    environment.filters |= {"md": markdown_text, "code": code, "breakable": _breakable}
    return environment


def markdown_text(text: object) -> str:
    """Text as one line of Markdown that shows exactly it: no HTML, formula, link, list or new table cell."""
    line = html.escape(" ".join(str(text).split()), quote=False).replace('"', "&quot;")
    # GitHub makes links of addresses and www. and @, and reads what a line begins with
    line = re.sub(r"[\\`*\[\]|$~@]|:(?=//)|(?<=\bwww)\.|^[#+-](?=[#+-]*(?:\s|$))|^=(?==*$)", _entity, line)
    line = re.sub(r"^(\d{1,9})([.)])(?=\s|$)", lambda found: found[1] + _entity(found[2]), line)
    # inside a word an underscore is harmless, and names are easier to read with it
    return re.sub(r"(?<!\w)_|_(?!\w)", _entity, line)


def _breakable(text: object) -> Any:
    """Escaped text that may be broken after an underscore, as names of experiments must be."""
    from markupsafe import Markup, escape

    return escape(text).replace("_", Markup("_<wbr>"))


def _entity(found: re.Match[str] | str) -> str:
    return f"&#{ord(found if isinstance(found, str) else found.group())};"


def code(text: object) -> str:
    """A name as Markdown code; names of experiments and prompts hold no backticks."""
    return f"`{str(text).replace('`', chr(39)).replace('|', '/')}`"
