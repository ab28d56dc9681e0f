"""The commands that say more about a run than its score: what moves inside, whether masks are stable, what goes with a gain.

May import everything but the other commands. Begin with `geometry_command.py`.
"""
