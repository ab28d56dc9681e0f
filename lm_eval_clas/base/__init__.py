"""What any program needs: one kind of error, a clock, processes, numbers and texts as people write them.

Imports nothing else of the package. Begin with `errors.py`.
"""
