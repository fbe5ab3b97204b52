"""Hyperparameter search on top of the package."""
