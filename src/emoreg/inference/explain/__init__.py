"""Looking inside a trained classifier, as one page."""
