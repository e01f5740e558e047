"""Detectors earn their vote: what calibration measures before a detector decides.

left_out  fits a detector again without one source, and counts its false alarms there
ballot    which detectors decide, and why
shares    shares of flagged texts, with intervals
measured  what the detectors and the whole guard flag by source and by length
"""
