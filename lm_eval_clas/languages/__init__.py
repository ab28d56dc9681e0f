"""Language codes, their names, and the language of a request.

Imports `base` alone. Begin with `codes.py`; `routing.py` is what the harness asks.
"""
