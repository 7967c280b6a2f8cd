"""One self-contained HTML file that shows what a run did and how good it is."""

from graphcl.report.page import write_report

__all__ = ["write_report"]
