"""The times that decisions rest on where the spec sets none, each with the reason for its length."""

from datetime import datetime, timedelta

#: Longest time between the objects of one ``kubectl apply`` or one sync of Argo CD. Until it has passed, a missing base
#: may still be created, and so may Experts whose domains a mixture's suite should contain.
SAME_APPLY = timedelta(seconds=5)

#: Longest time that a request takes from a gateway to a server. After it, no request that a gateway sent by its old
#: policy can still arrive. The server has its grace period to finish the requests that it has.
REQUEST_ON_ITS_WAY = timedelta(seconds=3)

#: Jobs and pods are watched separately. The event that a Job has finished may arrive this much earlier than the event
#: with the termination message of its pod.
TERMINATION_MESSAGE = timedelta(seconds=10)

#: If no pod of a Job, a server or a gateway has started after this time, and nobody says why, that is told.
PATIENCE = timedelta(seconds=60)

#: A snapshot no pod of which starts gives way to the pool's other snapshots after the first of these times. Until its next
#: turn, it waits that long too, and twice as long after each further turn, up to the second.
SNAPSHOT_TURN = timedelta(seconds=60)
LONGEST_TURN_WAIT = timedelta(minutes=15)

#: The wait before a failed attempt is repeated doubles with each attempt, from the first of these times to the second.
FIRST_RETRY = timedelta(seconds=10)
LAST_RETRY = timedelta(minutes=15)

#: Least time between two measurements of an Expert, and between two fillings of a pool's full matrix, by the pool's
#: ``evaluation.schedule``.
SCHEDULES = {"daily": timedelta(days=1), "weekly": timedelta(days=7)}

#: What waits for a change of another object is looked at again after this many seconds, in case the event is lost.
LOOK_AGAIN = 5.0

#: Seconds between two looks at whether all gateways use the newest policy. A gateway reads it within about a second.
POLICY_TAKEN_UP = 0.5

#: A proposal that has not started by then expires: what it rests on was measured too long ago.
PROPOSAL_LIFE = timedelta(days=7)

#: Proposals may start as many changes within this time as the pool's budget allows.
BUDGET_PERIOD = timedelta(hours=24)

#: A proposal about an Expert or a pool that does not exist waits this long for it, since both may come from one apply.
SUBJECT_AWAITED = timedelta(seconds=60)


def until_next(last: str, period: timedelta, now: datetime) -> float:
    """Return the seconds until a period has passed since a time that a status records; 0 if it has, or cannot be read.

    At most the period, also if the clock was put back since.
    """
    try:
        left: float = (datetime.fromisoformat(last) + period - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(left, 0.0), period.total_seconds())
