"""The documents by which the programs meet: operator, trainer, gateway and client each depend on these, not on one another.

resources/         the custom resources: spec and status of each kind, conditions, reasons, labels
job_config         what a Job is asked to do
job_report         what a Job found out: the headline in its termination message, and its progress
failure            how a Job says that it cannot go on: reasons, and exit codes that the operator reads
training_spec      how a revision is trained
serve_config       what an expert server serves
routing_policy     which Experts a gateway sends requests to, and how it chooses
ngram_table        the table of the Distilled strategy
object_stores      where the buckets are that a Job may read
store              the layout of a pool's store
segment_size       the sizes of the segments that models are compared on
context_length     whether a model sees enough for them, and how much each preset sees
format             the base class of all documents, canonical JSON, digests
paths              the one rule for paths beneath a store

Nothing here imports anything heavier than pydantic.
"""
