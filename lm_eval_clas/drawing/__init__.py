"""What all pictures share: figures, colours, marks, sizes of letters, saving, and how a picture becomes part of a web page.

May import `disk` and `base`. Begin with `figures.py`. A picture itself lies beside the data that it shows: tuning curves,
categories of neurons, sentence representations, the report's plots.
"""
