"""Measure a calibrated bundle on labelled rows.

evaluate     measures all files
methods      the detectors and the baselines as methods that score rows
baselines    word statistics, and the best probe of a single layer
scored_rows  one row with everything that was made of it
rule         what a bundle promises, and how it decides
metrics      AUROC, macro-F1, recall and rates
results      the metrics of one method on one file
domains      the false-positive rate of each domain's thresholds on every domain
report       the metrics of each file as tables
analysis     all statistics of an evaluation; of these
  rates      shares with their intervals, by source and by length
  ranking    ROC, precision and recall
  p_values   calibration of p-values
  agreement  pairs of detectors, and flips between two guards
files        JSON and Parquet
page         the HTML page
"""
