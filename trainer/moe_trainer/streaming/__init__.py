"""From snapshots to the batches of a training run.

tokens.py        documents as tokens in mapped files: the streams of a run
rows.py          a document as rows of token ids, and which of them are learnt
batches.py       which tokens step k trains on
block_order.py   how streams are interleaved, and the order within one
replay.py        text of the base's own training, mixed in
rehearsal.py     text that the Expert learnt before, mixed in with what is new
"""
