"""How a torch model learns: the step loop, the optimiser, checkpoints."""
