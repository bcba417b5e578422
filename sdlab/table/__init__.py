"""Side-by-side tables, experiments × prompts: in a notebook, as Markdown, HTML and PNG."""

from sdlab.table.building import prompts_of, table
from sdlab.table.captions import Heading, captions, hyperparameters_of, written
from sdlab.table.contents import Cell, Table
from sdlab.table.control import control_table
from sdlab.table.figures import Figures, duration, measured, summary

__all__ = [
    "Cell",
    "Figures",
    "Heading",
    "Table",
    "captions",
    "control_table",
    "duration",
    "hyperparameters_of",
    "measured",
    "prompts_of",
    "summary",
    "table",
    "written",
]
