"""A run on disk: what was asked, where it ran, what came out, and who is told while it trains."""
