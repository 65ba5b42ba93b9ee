"""What the model thinks comes next: the transformer, its objective, the forecaster."""
