"""What a revision is worth: models on holdouts, and the scores and evidence that are computed from them.

segments.py   what models are compared on: segments of held-out documents that no model has seen
scorer.py     the bits of every segment under a model; imports torch
matrix.py     the scores of one model on one holdout, kept; also of the byte-unigram model
scores.py     the scores that docs/concepts.md defines
evidence.py   a candidate against another model: the report's contents
report.py     the report of an evaluate Job, and its headline
drift.py      a revision on its Expert's newest text, against the anchor: the report of a drift Job
nearest.py    which domain's text other text resembles most; needs no model
"""
