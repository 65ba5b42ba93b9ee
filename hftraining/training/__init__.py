"""How the model learns: the step loop, the optimiser, checkpoints."""
