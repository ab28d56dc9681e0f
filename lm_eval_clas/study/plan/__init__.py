"""What a study will cost, before it costs it: counted from what is on file, without a network, data sets or the model.

Begin with `making.py` (`plan_study`). It may import what `study` may.
"""
