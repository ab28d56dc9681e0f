"""Whether the numbers of a finished run stand: a sample of its items, recomputed on a path that the run did not take.

May import `comparing` and what is below. Begin with `recomputing.py`.
"""
