"""What a revision is worth: models on holdouts, and the scores and evidence that are made of them.

segments.py       a document cut into what a model sees at once
scorer.py         bits of every segment under a model (torch);  unigram.py  under byte frequencies
cells.py          one model on one holdout, on disk;  matrix.py  all of a pool's
scores.py         the scores (docs/concepts.md);  evidence.py  a candidate against another
contamination.py  which holdout clusters a training run may have seen
report.py         what the gate reads
"""
