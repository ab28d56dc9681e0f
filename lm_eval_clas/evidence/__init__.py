"""Is it real? Paired tests, intervals, adjustments, correlations and agreement beyond chance, as pure functions of numbers.

May import `disk` and `base`. Begin with `paired_tests.py`, and `clusters.py` for items that hang together, which
`cluster_fields.py` finds; `smallest_gain.py` is for plans, `best_of_many.py` for tuning, `correlation.py` for causes,
`overlap_by_chance.py` for the stability of masks.
"""
