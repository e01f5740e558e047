"""Rows of JSONL and Parquet files: reading them, and checking many of them with a guard."""
