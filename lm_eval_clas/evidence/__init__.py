"""Is it real? Paired tests, intervals, adjustments and correlations, as pure functions of numbers.

Imports `base` alone. Begin with `paired_tests.py`; `best_of_many.py` is for tuning, `correlation.py` for causes.
"""
