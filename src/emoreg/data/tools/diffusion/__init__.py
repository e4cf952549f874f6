"""Sets like Diffused-EMOd: stimuli made anew by an image-to-image diffusion model."""
