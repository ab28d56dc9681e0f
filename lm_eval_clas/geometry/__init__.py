"""What moves inside: sentence representations with and without steering, and candidate causes of a gain.

May import `comparing` and what is below. Begin with `geometry_run.py`.
"""
