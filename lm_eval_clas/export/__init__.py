"""Out of the harness: adapters, merged checkpoints, model cards, and masks on the Hub.

May import `comparing` and what is below. Begin with `outline.py`: what every export says of itself.
"""
