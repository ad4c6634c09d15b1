"""A second device for tests: real arithmetic on a machine without a graphics card, which refuses what CUDA
refuses.

``tests/conftest.py`` registers the PyTorch device ``second``, and :func:`require` asks for it. The CPU
computes for it, with the same bits, while these fail as they fail on CUDA: an operation on tensors of both
devices (0-dimensional CPU tensors in pointwise operations and indices into a tensor of the device are
allowed, as on CUDA), a draw with a generator of another device, ``numpy()``, ``numpy.asarray`` and DLPack.
:func:`counted` counts what makes the host wait for a card, and :func:`recorded` stands in for a CUDA graph;
:func:`described` only says whether two blocks of operations could be one.

The device is PyTorch's PrivateUse1 with operations written in Python, an experimental interface: it works
with the releases in :data:`WORKS_WITH`, and :func:`require` skips the test, with a sentence, on any other.
Nothing outside ``tests`` imports this package. Differences from CUDA that remain:

- arithmetic follows at once, so no test sees a race between host and device;
- draws without a generator take the CPU's default one, so that ``torch.manual_seed`` gives equal bits;
- ``Module.to`` makes new parameters, where CUDA keeps the objects and changes what they hold.
"""

from tests.second_device.registration import WORKS_WITH, register_early, require
from tests.second_device.tape import Description, Tape, described, recorded
from tests.second_device.tensor import NAME
from tests.second_device.waits import Wait, Waits, counted

__all__ = [
    "NAME",
    "WORKS_WITH",
    "Description",
    "Tape",
    "Wait",
    "Waits",
    "counted",
    "described",
    "recorded",
    "register_early",
    "require",
]
