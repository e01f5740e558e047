"""Importing this first keeps a benchmark on one processor, and its libraries on one thread.

Libraries read the number of threads when they load, so it must stand before numpy and torch.
"""

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"

CPU = max(os.sched_getaffinity(0))
os.sched_setaffinity(0, {CPU})
