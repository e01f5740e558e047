"""Linear algebra on one thread: bitwise equal results, and faster for small networks.

With several threads a library adds the terms of a product in another order. The networks here are
so small that threads slow them down (twelve times, measured on two busy cores).
"""

from contextlib import AbstractContextManager
from typing import Any

from threadpoolctl import threadpool_limits


def one_thread() -> AbstractContextManager[Any]:
    """A context in which BLAS and OpenMP use one thread."""
    context: AbstractContextManager[Any] = threadpool_limits(limits=1)
    return context
