"""Models: one kind a file, behind one face."""
