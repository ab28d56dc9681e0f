"""What a decoder is made of: its configuration, its layers, their MLPs, experts and attention, and the axis of neurons.

Imports `base` alone. Begin with `linear_parts.py`.
"""
