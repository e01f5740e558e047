"""The exported graph at work: sessions, what is asked of them, and how answers are pooled."""
