"""Guarded generation: a decode loop that checks the prompt and every token of the answer."""
