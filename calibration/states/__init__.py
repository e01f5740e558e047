"""Hidden states of rows, computed by the exported graph.

blockwise  the input of every fit: states in blocks of rows, or one layer of all rows
recording  states in memory or in a temporary file
collect    runs the graph over rows
chosen     reads some of the rows
"""
