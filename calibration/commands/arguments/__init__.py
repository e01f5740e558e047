"""The arguments of the commands; nothing here needs the extra ``calibrate``."""
