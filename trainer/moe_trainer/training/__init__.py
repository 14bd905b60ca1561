"""One training run: what happens in it, what it keeps, and what it leaves.

run.py            the run in memory: model, data, optimizer
data.py           the tokens of a snapshot, as batches
step.py           one optimizer step
optimization.py   AdamW and the schedule
losses.py         what balances the routers;  base_losses.py   what compares with the base
balancing.py      moves and weighs what keeps the routers even
validation.py     what is measured on the way;  early_stop.py  when that says to end
not_finite.py     which layer broke a run that exploded
checkpoint.py     what an interrupted run goes on from
load_*.py         the load of in-layer experts: recorded, and as metrics
progress.py       metrics of a run, over HTTP
report.py         what is left beside the weights
"""
