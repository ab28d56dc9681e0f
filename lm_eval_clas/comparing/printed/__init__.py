"""What goes into a paper or a page as it is: names as people write them, and LaTeX.

May import what `comparing` may. Begin with `written_names.py`.
"""
