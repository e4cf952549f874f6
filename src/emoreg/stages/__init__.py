"""The two stages of the method: pre-training an emotional encoder, then training a classifier."""
