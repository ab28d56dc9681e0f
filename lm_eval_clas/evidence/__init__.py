"""Is it real? Paired tests, intervals, adjustments, correlations and agreement beyond chance, as pure functions of numbers.

May import `disk` and `base`. Begin with `paired_tests.py`; `best_of_many.py` is for tuning, `correlation.py` for causes,
`overlap_by_chance.py` for the stability of masks.
"""
