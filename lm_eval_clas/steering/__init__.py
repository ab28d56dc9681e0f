"""From masks to changed activations: checked options, factors and shifts by language, and the hooks that apply them.

May import `masks` and what is below. Begin with `effects.py`, then `activation_steerer.py`.
"""
