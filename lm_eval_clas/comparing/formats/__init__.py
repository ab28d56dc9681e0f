"""What files of the harness look like, release by release, brought to one form.

May import what `comparing` may. Begin with `results_content.py`.
"""
