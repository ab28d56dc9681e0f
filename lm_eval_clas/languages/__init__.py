"""Language codes, their names, and the language of a request.

May import `disk` and `base`. Begin with `codes.py`; `routing.py` is what the harness asks.
"""
