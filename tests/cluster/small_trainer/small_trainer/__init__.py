"""A trainer that speaks the real formats with a model that needs no torch: counts of byte pairs.

Tests of the cluster run it as the image `moe-operator/trainer`. Snapshots, evaluation, statistics, store
and reports are the real ones; only the model, its training loop and its server are these. It learns: an
Expert that branches from another codes text of its own domain better than its base does.
"""
