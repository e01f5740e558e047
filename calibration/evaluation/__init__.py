"""Measure a calibrated bundle on labelled rows.

evaluate   measures all files
methods    the detectors and the baselines as methods that score rows
baselines  word statistics, and the best probe of a single layer
metrics    AUROC, macro-F1, recall and rates
results    the metrics of one method on one file
domains    the false-positive rate of each domain's thresholds on every domain
report     results as a table and as an HTML page
"""
