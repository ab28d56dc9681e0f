"""The mask folder: its configuration, the set of masks it holds, where it comes from, and the strengths that were tuned for it.

May import `neurons` and what is below. Begin with `mask_set.py`.
"""
