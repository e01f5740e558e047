"""Rows of JSONL files: how they are read, and how a guard checks many of them."""
