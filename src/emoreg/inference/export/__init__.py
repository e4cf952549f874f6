"""Writing a trained classifier for other tools: the Hugging Face Hub, ONNX, torch.export, timm."""
