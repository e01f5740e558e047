"""Python bindings of the C core; no other folder uses cffi.

Frozen parameters are converted to pointers once, when a kernel object is created. States are read
in place: layers are not stacked, rows may have any stride, and the GIL is released while C
computes. Kernel objects are thread-safe: each call writes to its own memory.

States are a sequence of arrays, one per layer, each (rows, width) and all of one dtype: float32,
float16 or bfloat16 (a numpy array of dtype ``bfloat16``, or its bits as ``uint16``), or one array
(layers, rows, width). Arrays of other libraries in host memory that have ``__dlpack__`` or
``__array_interface__`` are read in place. The result depends only on the values, not on dtype,
stride, batch, thread or instruction set.
"""

from layerguard.runtime.kernels.blocks import BlockSet, judged
from layerguard.runtime.kernels.directions import DirectionsKernel, RangesKernel
from layerguard.runtime.kernels.frozen import Parameter, parameter_faults, parameters
from layerguard.runtime.kernels.gathered import gathered
from layerguard.runtime.kernels.host import host
from layerguard.runtime.kernels.level import level, set_level
from layerguard.runtime.kernels.pooling import pool_last, pool_mean
from layerguard.runtime.kernels.probe import ProbeKernel
from layerguard.runtime.kernels.scorer import VALID, Scorer
from layerguard.runtime.kernels.sums import RunningMean

__all__ = [
    "VALID",
    "BlockSet",
    "DirectionsKernel",
    "Parameter",
    "ProbeKernel",
    "RangesKernel",
    "RunningMean",
    "Scorer",
    "gathered",
    "host",
    "judged",
    "level",
    "parameter_faults",
    "parameters",
    "pool_last",
    "pool_mean",
    "set_level",
]
