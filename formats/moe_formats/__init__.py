"""The documents through which the programs meet. Operator, trainer, gateway and client depend on these, not on one another.

resources/         the custom resources: spec and status of each kind, conditions, reasons, labels
training_spec      every field that training reads: for users, for revisions and for Jobs
left_out           what the identities of revisions and checkpoints leave out of it: frozen tables
job_config         what a Job is asked to do
job_report         what a Job found out: the headline in its termination message, its progress, and its exit codes
failure            the exception by which a Job says that it cannot go on
serve_config       what an expert server serves
routing_policy     which Experts a gateway sends requests to, and how it chooses
ngram_table        the table of the Distilled strategy
object_stores      where the buckets are that a Job may read
store              the layout of a pool's store
segment_size       the sizes of the segments on which models are compared
context_length     whether a model sees enough tokens for those segments, and how many each preset sees
format             the base class of all documents, canonical JSON, digests
names              what names must look like
paths              the one rule for paths in a store
addresses          the one rule for addresses that requests are sent to

Nothing here imports anything heavier than pydantic.
"""
