"""Side-by-side tables, experiments × prompts: in a notebook, as Markdown, HTML, PDF and PNG."""

from sdlab.tables.building import captions, control_table, photo_table, prompts_of, table
from sdlab.tables.contents import Cell, Heading, Table
from sdlab.tables.figures import Figures, duration, figures, summary

__all__ = [
    "Cell",
    "Figures",
    "Heading",
    "Table",
    "captions",
    "control_table",
    "duration",
    "figures",
    "photo_table",
    "prompts_of",
    "summary",
    "table",
]
