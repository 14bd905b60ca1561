"""What is kept in the pool's store as a whole or not at all.

manifest.py   folders that are committed by a manifest with the SHA-256 of every file
cells.py      single figures that are computed once, each with a checksum
"""
