"""Models that the evaluation harness knows, and how it learns their names.

May import `steering` and what is below; `plugin.py` imports nothing of the package, as every start of `lm_eval` runs it.
Begin with `hf_clas.py`.
"""
