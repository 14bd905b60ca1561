"""What should be: pure functions from what was observed, and a clock, to a Plan. One policy per file.

expert      the order in which everything about an Expert is decided     plan_expert
pool        the same for what concerns several Experts at once           plan_pool

decisions     what the stages of plan_expert have decided, in one value
validation    what cannot work as it is written
base          what an Expert branches from
data          snapshots and refreshes
demand        whether another revision is demanded, why, and from which parents
identity      when two revisions are the same         lineage       which are promoted, what their parents saw
suite         the domains a revision is measured on   evaluators    the evaluators that it asks for
making        train, evaluate, start, judge           attempts      what has become of Jobs
promotion     THE gate: may a candidate serve?        targets       are they met?
serving       which revision serves, on which servers, and when old ones go
scaling       how many replicas: the only writer      children      what is missing or was changed
routing       the gateways' policy                    distillation  the table of the Distilled strategy
admission     whose Job starts now                    retention     which Jobs may go
conditions    how a revision stands, in conditions    *_status, *_conditions, *_events   what is told of it
job_configs   what Jobs are asked to do               evidence      what they found out
names         names of objects, from what they are for
times         how long things in the world take
"""

from moe_operator.planner.expert import plan_expert
from moe_operator.planner.pool import plan_pool

__all__ = ["plan_expert", "plan_pool"]
