"""Side-by-side tables, experiments × prompts: in a notebook, as Markdown, HTML and PNG."""

from sdlab.table.captions import Heading, captions, hyperparameters_of, number, written
from sdlab.table.contents import Cell, Table, table

__all__ = ["Cell", "Heading", "Table", "captions", "hyperparameters_of", "number", "table", "written"]
