"""Studies: every arm on every target, backbone and experience, with every seed, all else equal."""
