"""The page of a study: one self-contained HTML file that opens offline."""

from raymix.report.page import write_report

__all__ = ["write_report"]
