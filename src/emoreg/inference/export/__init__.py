"""Export of a trained classifier: the Hugging Face Hub, ONNX, torch.export, timm."""
