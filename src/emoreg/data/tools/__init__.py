"""Tools for image sets: list, verify, show, pack, and generate variants by diffusion."""
