"""Where documents come from: files of a claim or an object store, read one document at a time.

files.py           listing and opening files; which files a source's root stands for
listing.py         the files beneath a folder that a glob matches
object_store.py    the same for a store that speaks S3
compression.py     compressed files
records.py         lines of jsonl, rows of parquet
conversations.py   lists of messages
cutting.py         long documents in pieces
documents.py       all of these together: the documents of one source, with counts of what was unusable
"""
