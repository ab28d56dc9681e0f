"""One HTML file that says what a study found. It shows what files say, and estimates nothing.

Of `study`, it imports the record alone. Begin with `rendering.py`.
"""
