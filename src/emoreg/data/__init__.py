"""Images and their labels: reading files, affective stimuli, classification targets, and tools to look after them."""
