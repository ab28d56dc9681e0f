"""What steered models of the harness share, whatever engine runs them.

May import `steering` and what is below, and of `harness` all but the models themselves. Begin with `steered_lm.py`.
"""
