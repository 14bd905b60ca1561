"""From files to what is trained on and what is held out. Imports no torch, except tokens.py and batches.py."""
