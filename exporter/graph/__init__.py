"""The graphs of a bundle: what each computes, how it is traced, converted and written."""
