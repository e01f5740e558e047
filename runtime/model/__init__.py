"""Runs the exported graph: sessions, the outputs to request, and the pooling of states."""
