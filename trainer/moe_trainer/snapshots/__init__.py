"""What a snapshot Job does with documents (snapshot.py runs these in order).

intake.py          reads, filters and signs the documents of all sources
workers.py         the processes in which intake.py does so
filters.py         filters of single documents
surprise.py        the perplexity filter's model
splitting.py       which clusters of near-duplicates are held out
holdouts.py        what a pool remembers about held-out text
windows.py         commits held-out documents as a new window
training_side.py   commits the rest
layout.py          the files of a snapshot and of a holdout, and how to read them
"""
