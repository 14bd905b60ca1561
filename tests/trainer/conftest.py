"""Without a GPU, Triton's kernels are interpreted.

Whether they are is settled when Triton is imported, so it is settled here, before any test module is.
"""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
