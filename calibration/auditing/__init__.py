"""Audit a tuned model against its base.

audit           the whole audit
weight_changes  the change of each matrix, and the texts that excite the changes
report          an audit as tables, as JSON, and as an HTML page
"""
