"""A run on disk: what was asked, where it ran, what came out, and the trackers that follow it."""
