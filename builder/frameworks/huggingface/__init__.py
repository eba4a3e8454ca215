"""Hugging Face model directories: what the config says goes in, and the model behind plain tensors."""
