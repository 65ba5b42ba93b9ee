"""The one kind of error that is not a fault: a command prints its line and ends with exit code 2."""


class UserError(ValueError):
    """What was asked for cannot be done: what, where, what to do, in one line."""
