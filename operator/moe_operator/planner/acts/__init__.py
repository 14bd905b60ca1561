"""What can be proposed for an Expert, one policy per file. Each says when, what it rests on, and what it promises.

policy         what an act consists of, and the evidence that a proposal records
refresh        train on the newest snapshot
respecialize   train again because the Expert has drifted
rebase         train again from a newer revision of the base
roll_back      make an earlier revision the current one
"""

from collections.abc import Mapping

from moe_formats.resources.lifecycle import Act
from moe_operator.planner.acts.policy import Policy
from moe_operator.planner.acts.rebase import REBASE
from moe_operator.planner.acts.refresh import REFRESH
from moe_operator.planner.acts.respecialize import RESPECIALIZE
from moe_operator.planner.acts.roll_back import ROLL_BACK

#: The policies, in the order in which proposals are made if there is not room for all.
ACTS: Mapping[Act, Policy] = {policy.act: policy for policy in (ROLL_BACK, REFRESH, RESPECIALIZE, REBASE)}
