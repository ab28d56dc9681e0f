"""The main job from end to end on a small real model.

May import `comparing` and what is below. Begin with `demo_run.py`.
"""
