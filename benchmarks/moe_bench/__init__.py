"""The parts of moe_layer.py.

    cases.py    shapes, routings, and batches whose router chooses as a routing wants
    layers.py   the layers that are compared: ours and others', on the same weights
    timing.py   clocks, and rounds in which every layer has its turn
    measure.py  one case: errors, memory and time of every layer
    worker.py   the process that measures, told what to do and telling how far it is
    table.py    a result as a table

Shapes, in every file: N tokens, D hidden, E in-layer experts, K active per token, F inner width.
"""
