"""Streams: the verdict on a text that is still being written, at a cost per token that is flat."""
