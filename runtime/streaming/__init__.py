"""Streams: verdicts on a text that is still being written, at a constant cost per token."""
