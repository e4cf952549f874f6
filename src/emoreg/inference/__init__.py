"""Use of a trained classifier: predict, explain, export, demo."""
