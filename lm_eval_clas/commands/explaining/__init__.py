"""The commands that explain a score: whether it stands, what moves inside, whether masks are stable, what goes with a gain.

May import everything but the other commands. Begin with `geometry_command.py`; `shown_numbers.py` is what they share.
"""
