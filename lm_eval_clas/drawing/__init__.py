"""What all pictures share: figures, colours, marks, sizes of letters, saving, and how a picture becomes part of a web page.

A picture itself lies beside the data that it shows: `curves.py`, `category_picture.py`, `point_picture.py`, `plots.py`.
May import `base` and `disk`. Begin with `figures.py`.
"""
