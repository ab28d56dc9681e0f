"""Runs of the harness side by side: read back, paired item by item, tested, and laid out as tables.

May import `evidence` and what is below `geometry`, and loads no model. Begin with `compare_runs.py`.
"""
