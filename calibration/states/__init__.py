"""Hidden states of rows, computed by the exported graph.

blockwise  the input of every fit: states in blocks of rows, or one layer of all rows
recording  states in memory or in a temporary file
passes     runs the graph over rows, for readers of its states
collect    reads states into a recording
chosen     reads some of the rows
"""
