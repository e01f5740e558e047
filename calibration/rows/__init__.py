"""Rows of text for calibration: labels, test files, folds.

sources      reads rows from JSONL files, or takes them as given
labelled     selects rows by their label
leakage      leaves out rows whose text a test file contains
folds        folds that keep a group of rows together
stratified   the same, with similar shares of each label
traffic      the sources of rows that are large enough to be measured
insertion    training texts with payloads at known places
marked       a text with one marked passage
forms        the forms in which applications hand texts to a model
records      of these, results of tools: JSON or a printed Python object
made_up      names, dates and other facts around a text
fingerprint  a hash of a set of rows
text_hashes  keyed hashes of texts
"""
