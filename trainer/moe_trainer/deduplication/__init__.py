"""Recognising documents again, and finding near-duplicates among very many of them.

minhash.py           the signature of a document
crc.py               the checksums that a signature is made from
catalogue.py         names and signatures of documents, in files
sorting.py           orders and lookups over a catalogue in bounded memory
near_duplicates.py   which rows of a catalogue are alike
fingerprints.py      what is stored of a document: its name, its signature, and where it was placed
"""
