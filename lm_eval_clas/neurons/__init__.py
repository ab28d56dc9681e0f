"""What neurons do, by language: statistics of activations, categories, bridge layers, and whether they are stable.

May import `decoder`, `evidence`, `texts` and what is below. Begin with `profiling.py`, then `categories.py` and `bridge.py`.
"""
