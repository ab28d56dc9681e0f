"""The commands of `clas`, a file for each stage of the work. Each is a thin layer over the module that does it.

May import everything; nothing imports it. Begin with `cli.py`, which lists them; they share `application.py` and
`shared_options.py`.
"""
