"""What is kept in the pool's store as a whole or not at all.

files.py       single files and folders, whatever somebody else puts in their place
manifest.py    the manifest of a committed folder, with the SHA-256 of every file
committing.py  folders written and then committed by a manifest
committed.py   such folders verified and held open, so that what was verified is what is read
cells.py       single figures that are computed once, each with a checksum
"""
