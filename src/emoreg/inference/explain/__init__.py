"""One page about the inside of a trained classifier: saliency, the effect of the emotional response, features."""
