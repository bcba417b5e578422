"""The homework's report: README.md with relative links and report.html, one file that prints well."""

from sdlab.report.writing import report

__all__ = ["report"]
