"""Trained encoders as files that other programs read: ONNX, and folders of Hugging Face and sentence-transformers."""
