"""Sets like Diffused-EMOd: variants of stimuli by an image-to-image diffusion model."""
