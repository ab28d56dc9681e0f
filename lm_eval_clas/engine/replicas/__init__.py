"""Several engines of vLLM with a copy of the model each (`data_parallel_size`), which share the requests.

May import what is below `engine`, and nothing of `engine` itself. Begin with `replicated_engine.py`.
"""
