"""The page of a study: one self-contained HTML file that opens offline."""

from raymix.report.page import render

__all__ = ["render"]
