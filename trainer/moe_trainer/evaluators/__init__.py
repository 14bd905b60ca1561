"""Evaluators: named measures of tasks whose solutions can be checked.

    tasks.py         what is asked: items with their answers, frozen in the pool's store by digest
    measures.py      what is right: one function a measure, completion to a number of 0 to 1
    answers.py       what a model answered, item by item, kept like a cell of the matrix
    exchange.py      what passes between us and a grader: a file of questions, a file of verdicts
    verdicts.py      what a grader said of a model's answers, kept likewise
    accuracy.py      the share that it got right, and the difference to another model, with intervals

The snapshot Job freezes the tasks before anything is trained; the evaluate Job has them answered, greedily
(generation.py). Nothing here executes what a model writes; a grader may, in a container of its own.
"""
