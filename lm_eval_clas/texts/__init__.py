"""Parallel corpora, the splits of the data sets, and the scores of answers.

May import `base` and `languages`. Begin with `corpora.py`.
"""
