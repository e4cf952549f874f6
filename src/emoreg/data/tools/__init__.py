"""Looking after image sets: which there are, whether one is whole, what it looks like, and packing it."""
