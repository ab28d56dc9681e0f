"""`clas report`: one HTML file that says what a study found. It shows what files say, and estimates nothing."""

from lm_eval_clas.report.rendering import render, write_report

__all__ = ["render", "write_report"]
