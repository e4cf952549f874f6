"""What every other package stands on: signals, seeds, safe files, locks, progress. Knows nothing of the method."""
