"""Export a trained classifier: for the Hugging Face Hub, as ONNX, as a torch.export program, or as weights for timm."""
