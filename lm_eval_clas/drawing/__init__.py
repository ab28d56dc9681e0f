"""What all pictures share: figures, colours, marks, sizes of letters, saving.

May import `base` and `disk`. Begin with `figures.py`.
"""
