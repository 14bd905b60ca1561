"""Where documents come from: files of a claim or an object store, read one document at a time.

files.py           listing and opening files; which files a source's root stands for
listing.py         the files beneath a folder that a glob matches
object_store.py    the same for a store that speaks S3
bucket_listing.py  the objects of a bucket
budget.py          how much text may be made from a source's bytes
compression.py     compressed files
records.py         lines of jsonl
parquet_rows.py    rows of parquet, decoded in a process of their own (parquet_decoder.py)
conversations.py   lists of messages
cutting.py         long documents in pieces
faults.py          what can be wrong with a record or a file
documents.py       all of these together: the documents of one source, with counts of what was unusable

Whoever wrote these files is not trusted: what a reader accepts at most is in moe_trainer/limits.py.
"""
