"""Tensors in safetensors files, read and written in parts. Never pickle.

safetensors_header.py   what a file says it holds, checked; imports no torch
reading.py              some rows of a tensor, from one file or from shards with an index
writing.py              tensors written as they come, in one file or in shards with an index
"""
