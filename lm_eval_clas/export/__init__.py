"""Out of the harness: adapters, merged checkpoints, model cards, and masks on the Hub.

May import `steering` and what is below. Begin with `outline.py`.
"""
