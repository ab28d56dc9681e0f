"""Parallel corpora, the splits of the data sets, and the scores of answers.

May import `languages`, `disk` and `base`. Begin with `corpora.py`.
"""
