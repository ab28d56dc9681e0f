"""Ways to steer, one module each, and the table of them.

May import `disk` and `base`, and asks masks for what they hold. Begin with `steering_method.py`, then `method_table.py`.
"""
