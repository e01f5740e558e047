"""The HTML page of an evaluation.

page        the sections in their order
formats     numbers as text
summary     the figures at the top
rates       false alarms and detection by source and length
ranking     ROC, precision and recall, score distributions
decisions   confusion, p-values, agreement
errors      the worst errors, and all rows
comparison  a second bundle on the same rows
"""
