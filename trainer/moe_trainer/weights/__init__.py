"""Tensors in safetensors files, read and written in parts. Never pickle.

safetensors_header.py   the checked header of a file, which lists its tensors; imports no torch
reading.py              some rows of a tensor, from one file or from shards with an index
model_config.py         the config of a model, whose sizes are held against its tensors; imports no torch
writing.py              tensors written as they come, in one file or in shards with an index
"""
