"""Mean and standard deviation for normalising colours."""

# The same for every set and both stages (ours), so that the emotional encoder sees a colour as the same value in all of
# them. They are ImageNet's, which published weights expect, for colours in [0, 1].
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
