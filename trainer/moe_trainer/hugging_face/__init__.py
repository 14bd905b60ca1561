"""Decoders of transformers as bases: what is loaded, trained and saved here is a Hugging Face directory.

    experts.py     their in-layer experts on our layer; of use alone: ``experts_implementation="moe-operator"``
    routers.py     their routers replaced by ours, so that load is measured and balanced
    decoder.py     Decoder: a network of transformers as a CausalModel
    cache.py       keys and values of sequences being decoded, in rows
    directory.py   a directory to a Decoder, whole or in parts, and back
    conversion.py  which tensors on disk are which in memory, a few at a time
    weights.py     its tensors: sharded safetensors, each written as it was stored
    tokenizer.py   its tokenizer and chat template

Imported only where a model is no preset: transformers costs seconds at every start.
"""
