"""Guarded generation: a decode loop that checks its prompt and every token of its answer."""
