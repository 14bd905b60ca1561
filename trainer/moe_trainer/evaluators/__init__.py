"""Evaluators: named measures on tasks whose solutions can be checked.

    tasks.py        the items of an evaluator, read from a source once and frozen
    generation.py   a model's completions; imports torch
    answers.py      a model's answers to tasks, kept in the store
    measures.py     what counts as right; a new measure goes here
    exchange.py     the files that are exchanged with a grader
    verdicts.py     a grader's verdicts on a model's answers, kept in the store
    gradings.py     what a grade Job works on
    accuracy.py     from answers to an accuracy with its interval

The snapshot Job freezes the tasks before anything is trained; the evaluate Job has the models answer them greedily.
Nothing here executes what a model writes; a grader may, in a container of its own.
"""
