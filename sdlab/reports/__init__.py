"""The homework's report: README.md with relative links, report.html and report.pdf, English or Russian."""

from sdlab.reports.writing import report

__all__ = ["report"]
