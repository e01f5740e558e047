"""Calibrate a whole guard: fit its detectors and freeze them into a bundle.

calibrate      calibrates a bundle on rows of text
recalibrate    sets the thresholds of a bundle on recent traffic
fit_detectors  fits the detectors with as few passes of the graph as possible
labelled_fit   scores clean rows with a detector that was fitted to labelled rows
scored         the scores of all detectors, and their votes
freeze         writes the detectors into the bundle
removed        names the files that a change of the detectors removes
"""
