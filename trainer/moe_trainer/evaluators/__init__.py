"""Evaluators: named measures of tasks whose solutions can be checked without a judge.

    tasks.py         what is asked: items with their answers, frozen in the pool's store by digest
    measures.py      what is right: one function a measure, completion to a number of 0 to 1
    answers.py       what a model answered, item by item, kept like a cell of the matrix
    accuracy.py      the share that it got right, and the difference to another model, with intervals

The snapshot Job freezes the tasks before anything is trained; the evaluate Job has them answered, greedily
(generation.py). Nothing that a model writes is ever executed.
"""
