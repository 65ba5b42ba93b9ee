"""What can be learned: one kind of model a file, behind one face."""
