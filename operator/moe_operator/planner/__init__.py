"""What should be done: pure functions from what was observed, and the time, to a Plan. One policy per file.

The order of decisions:
expert        everything about one Expert: plan_expert
pool          what concerns several Experts at once: plan_pool
proposal      what becomes of one proposal: plan_proposal
decisions     what the stages of plan_expert have decided so far, in one value

What an Expert needs:
validation    what makes it impossible as it is written
base          what it starts from: another Expert, a preset or a checkpoint
data          its snapshots, and when another one is taken
demand        whether another revision is demanded, why, and from which parents
identity      the digest by which two revisions are the same
lineage       which revisions are promoted, and what their parents were trained on
suite         the domains that a revision is measured on
evaluators    the evaluators that the Expert asks for

How a revision is made:
making        its steps: train, evaluate, start, judge
measuring     the drift of the current revision: when it is measured, and what is recorded
attempts      which stage work has reached that Jobs attempt
job_configs   what Jobs are asked to do
evidence      what Jobs found out, as a status records it
grading       the Job in which graders judge answers
promotion     the gate: whether a revision may serve
targets       whether the targets of the spec are met

What serves:
serving       which revision serves, on which servers, and when old servers are deleted
scaling       how many replicas a Deployment gets: the only writer of that number
routing       the policy of the gateways
matrix        the full matrix of the pool, on its schedule
distillation  the table of the Distilled strategy
children      which objects are missing or were changed
admission     which suspended Jobs start now
retention     which Jobs are deleted

What is proposed:
acts/         each act: when it is proposed, what it rests on, what it promises
proposals     what is proposed for the Experts of a pool now
proposal_start   whether an approved proposal may start
proposal_course  what comes of it: carried out, measured, undone
modes         whether an act may happen by itself
withdrawal    which promotions are taken back, or given again
respecialize  how a revision is trained after drift
drift         whether a revision has drifted, and what moved
trend, proportions   what other measurements say
analysis      what traffic says

What is reported:
conditions    which stage a revision has reached, as conditions; also Ready, Reconciling and Stalled
expert_status, expert_conditions, expert_events, pool_status, revision_status, proposal_status
blockage      why pods do not run
status_writes which statuses have to be written

names         names of objects, derived from what they are for
times         the times that decisions rest on
"""

from moe_operator.planner.expert import plan_expert
from moe_operator.planner.pool import plan_pool
from moe_operator.planner.proposal import plan_proposal

__all__ = ["plan_expert", "plan_pool", "plan_proposal"]
