"""Runs on disk: recipe, environment, results, and the trackers that follow them."""
