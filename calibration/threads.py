"""One thread for linear algebra: the same bits on machines of any size, and no waiting.

A library that splits a product over threads adds in another order; and the networks here are so
small that threads cost more than they bring (twelvefold, measured on two busy cores).
"""

from contextlib import AbstractContextManager
from typing import Any

from threadpoolctl import threadpool_limits


def one_thread() -> AbstractContextManager[Any]:
    """A context in which BLAS and OpenMP use one thread."""
    limits: AbstractContextManager[Any] = threadpool_limits(limits=1)
    return limits
