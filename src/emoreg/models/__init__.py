"""The networks: backbones, and the regulated classifier around two of them."""
