"""What neurons do, by language: statistics of activations, categories, bridge layers, and whether they are stable.

May import the folders of texts and decoders and those below. Begin with `profiling.py`, then `categories.py` and `bridge.py`.
"""
