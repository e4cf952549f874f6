"""Suites: what a finished classifier scores beyond accuracy on its test split, from its saved model."""
