"""Turns requests into token ids: requests, templates, windows."""
