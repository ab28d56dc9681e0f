"""What every command of `clas` has without saying so: --quiet, an end by Ctrl-C, the nearest choice for a mistyped one.

Imports no command. Begin with `command_kind.py`.
"""
