"""Explain a trained classifier on one page: saliency, effect of the emotional response, features."""
