"""Files written whole or not at all, and read with care: checked JSON and YAML, tensors, records of what is ours.

May import `base`. Begin with `files.py`, then `written.py` and `checked_json.py`.
"""
