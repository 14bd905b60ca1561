"""One training run: what happens in it, what it saves, and what it reports (train.py puts the parts in order).

run.py            the run in memory: model, data, optimizer
data.py           the snapshots of a run as token streams
step.py           one optimizer step
optimization.py   AdamW and the learning rate's schedule
losses.py         the losses that balance routers
base_losses.py    the losses that compare the model with its base
balancing.py      keeps the routers even, by losses and by biases
load_record.py    how evenly the routers spread their load, for the report
validation.py     what is measured every few steps
early_stop.py     when a run ends early, and the best weights so far
curriculum.py     which sources are read how often
trial.py          a curriculum against the weights that the spec gives, from one state of the run
not_finite.py     the error of a run whose numbers are no longer finite, with the place where it began
checkpoint.py     what an interrupted run resumes from
progress.py       progress in the log and over HTTP
report.py         the report that is stored alongside the weights
"""
