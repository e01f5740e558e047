"""From what a caller passes to token ids: requests, templates, windows."""
