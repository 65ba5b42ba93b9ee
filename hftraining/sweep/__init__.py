"""Searching hyperparameters: Hydra sweepers on Optuna, and what came of a sweep."""
