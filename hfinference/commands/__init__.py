"""The commands of `python -m hfinference`, a file each, whose `add_to(commands)` says their name and arguments.

A command imports what it needs when it is called, so that --help imports nothing heavy.
"""
