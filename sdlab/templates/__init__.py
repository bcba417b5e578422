"""Jinja2 templates; every text that goes into one is escaped."""

from __future__ import annotations

from typing import Any


def render(template: str, **values: Any) -> str:
    """Fill a template of this folder.

    Args:
        template: file name, such as "table.html".
        values: what the template names.

    Returns:
        The text, with every value HTML-escaped in .html templates.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sdlab", "templates"),
        autoescape=template.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
