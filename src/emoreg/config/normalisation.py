"""The statistics by which colours are normalised."""

# One normalisation for every set and both stages (ours), so that a colour has the same value wherever the emotional
# encoder meets it. The values are ImageNet's, which published weights expect; of colours in [0, 1].
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
