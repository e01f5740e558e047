"""The check of an exported graph against the model in PyTorch."""
