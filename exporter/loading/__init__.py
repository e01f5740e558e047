"""A model as it lies on disk, made into a PyTorch backbone and its language-model head."""
