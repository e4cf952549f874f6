"""Suites: scores of a finished classifier beyond accuracy on its test split, from its saved model."""
