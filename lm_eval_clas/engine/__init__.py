"""Steering by request inside vLLM: each request names a row of factors, and requests of all languages run in one batch.

May import `harness` and what is below; vLLM itself is imported only when a model is asked for. `worker.py` and `scheduler.py`
run in vLLM's own processes. Begin with `vllm_clas.py`, then `row_steering.py`.
"""
