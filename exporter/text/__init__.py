"""The tokenizer, the chat template and the text rules of a bundle."""
