"""vLLM's OpenAI-compatible server, steered by the language that each request names.

May import `engine` and what is below. Begin with `server_start.py`, then `language_middleware.py`.
"""
