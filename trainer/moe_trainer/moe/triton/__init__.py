"""The in-layer experts' products as Triton kernels, for NVIDIA GPUs of compute capability 9.0 and newer."""
