"""Which strength: every setting measured on the same items, one chosen by task and language, and the curves of all.

May import `comparing` and what is below. Begin with `tuning_run.py`.
"""
