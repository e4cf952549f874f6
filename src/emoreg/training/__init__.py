"""The training loop of both stages, its checkpoints, and how it is spread over devices."""
