"""What is kept in the pool's store as a whole or not at all.

manifest.py   folders that are committed by a manifest with the SHA-256 of every file
committed.py  such folders verified and held open, so that what was verified is what is read
cells.py      single figures that are computed once, each with a checksum
"""
