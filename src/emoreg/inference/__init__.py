"""Use of a trained classifier: calibrate, predict, explain, export, demo."""
