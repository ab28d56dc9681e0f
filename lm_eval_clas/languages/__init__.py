"""Language codes, their names, and the language of a request.

Imports `base` alone. Begin with `codes.py`; `task_names.py` has the rule of names, and `routing.py` is what the harness asks.
"""
