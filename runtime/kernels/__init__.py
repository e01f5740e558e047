"""The C core from Python, one module a family. The one folder that knows cffi.

Frozen parameters become pointers once, when a kernel is made. States are read where they lie:
layers are never stacked, rows may have any stride, and the GIL is free while C computes. One kernel
object serves any number of threads: a call writes to memory of its own.

States are a sequence of arrays, one a layer, each (rows, width) and of one dtype: float32, float16
or bfloat16 (a numpy array of dtype ``bfloat16``, or ``uint16`` holding its bits), or one array
(layers, rows, width). An array may be of another library: what has ``__dlpack__`` or
``__array_interface__``, in host memory, is read where it lies. The result depends on the values
alone: not on dtype, stride, batch, thread or instruction set.
"""

from layerguard.runtime.kernels.gathered import gathered
from layerguard.runtime.kernels.host import host
from layerguard.runtime.kernels.lcf import LcfKernel
from layerguard.runtime.kernels.level import level, set_level
from layerguard.runtime.kernels.pooling import pool_last, pool_mean
from layerguard.runtime.kernels.siren import SirenKernel
from layerguard.runtime.kernels.sums import RunningMean
from layerguard.runtime.kernels.weightwatch import DirectionsKernel, RangesKernel

__all__ = [
    "DirectionsKernel",
    "LcfKernel",
    "RangesKernel",
    "RunningMean",
    "SirenKernel",
    "gathered",
    "host",
    "level",
    "pool_last",
    "pool_mean",
    "set_level",
]
