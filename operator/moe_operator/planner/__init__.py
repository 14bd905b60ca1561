"""What should be: pure functions from what was observed, and a clock, to a Plan. One policy a file.

expert      the order in which everything about an Expert is decided      plan_expert
pool        the same for what concerns several Experts at once            plan_pool

validation  what cannot work as it is written        promotion   THE gate: may a candidate serve?
data        snapshots and refreshes                  targets     are they met?
base        what an Expert branches from             rollout     servers of the promoted revision
cause       why a revision would be made             routing     the gateways' policy; old servers drain
parent      what it starts from, by cause            distillation  the table of the Distilled strategy
identity    when two revisions are the same          admission   whose Job starts now
wanted      which revision is asked for              drift       what was edited or deleted by hand
suite       the domains it is measured on            retention   which Jobs may go
making      train, evaluate, judge                   attempts    what has become of Jobs
"""

from moe_operator.planner.expert import plan_expert
from moe_operator.planner.pool import plan_pool

__all__ = ["plan_expert", "plan_pool"]
