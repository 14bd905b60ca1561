"""Estimates with intervals, from values that come in clusters. numpy only; knows no model and no store.

clustered.py     values grouped by their cluster
bootstrap.py     the studentised bootstrap: the source of every interval but one
probability.py   the interval of a figure between 0 and 1
accuracy.py      the share of right answers, and the difference between two models
superiority.py   how often a value of one sample exceeds one of another
"""
