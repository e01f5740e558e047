"""Thresholds from scores of clean texts.

conformal         the conformal threshold, and the interval of its false-positive rate
threshold         the threshold of one detector, as the bundle stores it
guard_thresholds  the thresholds of all detectors of a guard, set together for one target
text_scores       scores texts with a bundle's detectors
kept_detectors    the scores of detectors that are not fitted again
"""
