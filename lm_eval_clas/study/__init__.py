"""One recipe, one command: the stages of a study, what they cost, the record of what was done, and the report.

May import everything but `commands`. Begin with `recipe.py`, then `stages.py`.
"""
