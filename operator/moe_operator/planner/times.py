"""How long things in the world take: every time that a decision rests on, and what it stands for."""

from datetime import timedelta

#: Objects of one ``kubectl apply``, or of one sync of Argo CD, arrive within this time of each other. Until it has
#: passed, a base that is missing may still come, and so may domains that a mixture's suite should hold.
SAME_APPLY = timedelta(seconds=5)

#: A request that a gateway sent just before it took up another policy has reached its server after this time. The
#: server then finishes it before it ends, however long that takes, within its own grace period.
REQUEST_ON_ITS_WAY = timedelta(seconds=3)

#: Jobs and pods are watched apart: the news that a Job has finished may be this much ahead of the news of what its
#: pod left in its termination message.
TERMINATION_MESSAGE = timedelta(seconds=10)

#: A snapshot whose pod cannot be scheduled holds up the pool's other snapshots for this long at a time.
SNAPSHOT_TURN = timedelta(seconds=60)

#: The wait before a failed attempt is repeated doubles from the first of these to the second.
FIRST_RETRY = timedelta(seconds=10)
LAST_RETRY = timedelta(minutes=5)

#: Whoever waits for something that an event should tell of looks again after this many seconds, should it be lost.
LOOK_AGAIN = 5.0

#: A gateway reads a changed policy within about a second; whether it has is looked at this often, in seconds.
POLICY_TAKEN_UP = 0.5
