"""The table of the Distilled routing strategy: numpy only.

examples.py      the prompts that it is fitted to, and the held-out segments that routes are judged on
ngram_model.py   the model that is fitted: logistic regression on hashed n-grams
"""
