"""Earlier networks with emotions of their own, for comparison: EmBP, BEL and LiAENN (docs/relatives.md).

Their emotions are computed from the input and the error. They need no affective images, and no stage 1.
"""
