"""One HTML file that says what a study found. It shows what files say, and estimates nothing.

Of `study`, it imports the record alone, and nothing that runs a model. Begin with `rendering.py`, then `sources.py` and
`verdicts.py`.
"""
