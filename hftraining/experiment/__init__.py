"""The experiment: its config tree, and the conductor that takes a run from prices to report."""
