"""The base of every other package: signals, seeds, safe files, locks, progress. Independent of the method."""
