"""Searching hyperparameters: our Hydra sweeper on Optuna, and the results of a sweep."""
