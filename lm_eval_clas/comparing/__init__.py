"""Runs of the harness side by side: read back, paired item by item, tested, and laid out as tables.

May import `harness` and what is below, but for whatever loads a model: tables are made on machines without one. Begin with
`compare_runs.py`; `results_files.py` is the one place that reads what the harness wrote.
"""
