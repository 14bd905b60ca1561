"""Tensors in safetensors files, read and written in parts. Never pickle.

safetensors_header.py   the checked header of a file, which lists its tensors; imports no torch
reading.py              some rows of a tensor, from one file or from shards with an index
writing.py              tensors written as they come, in one file or in shards with an index
"""
