"""Rows of JSONL files: reading them, and checking many of them with a guard."""
