"""Which families of decoders are supported: tiny random models of every family that transformers has, tried one by one.

Imports what it tries: `decoder`, `engine`, `export`, `masks`, `steering`, `verifying`. Begin with `family_trial.py`.
"""
