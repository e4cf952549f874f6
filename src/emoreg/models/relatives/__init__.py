"""Earlier emotional networks, for comparison: EmBP, BEL and LiAENN (docs/relatives.md).

Their emotions are computed from the input and the error. They need neither affective images nor a stage 1.
"""
