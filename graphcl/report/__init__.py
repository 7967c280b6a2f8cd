"""One self-contained HTML file that shows what a run did and how good it is, and tables of runs side by side."""

from graphcl.report.comparison import Comparison, Group, compare_runs
from graphcl.report.comparison_page import write_comparison
from graphcl.report.page import write_report

__all__ = ["Comparison", "Group", "compare_runs", "write_comparison", "write_report"]
