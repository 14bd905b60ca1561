"""All input and output of the operator: the API server and the pods that it asks. Nothing is decided here.

    kopf event -> cache -> triggers -> queue -> reconcile: gather -> plan -> apply

Objects are plain JSON here (``Manifest``). gather turns them into the values of ``moe_operator.state``.

What is known of the cluster:
connection      address and credentials of the API server
api_client      requests to it
resources       the kinds that are read, and their paths
permissions     what the operator may do with them, and why: the chart's roles
listing         fills the cache at the start, and compares it with the API server from time to time
cache           every object that is read, as it was last seen or written
sound           makes an object safe to read as it enters the cache
kinship         what belongs to an Expert or a pool, by the chain of owners
job_pods        which pods are those of a Job, and whose reports are believed
observe         live Jobs, pods and Deployments, reduced to what decisions need
probes          asks running pods for their progress and their routing policy
gather          collects everything that a decision about one object may look at

What is done:
triggers        which objects a change concerns
queue           the keys that wait to be reconciled
reconcile       takes a key, gathers, plans and applies
apply           carries out a plan
ownership       which objects are ours, and what to say about one that is in the way
managed_fields  which fields an apply may remove
events          writes Kubernetes Events
internal_error  what an object's status says if it could not be processed, or if a name that it needs is taken

How the process is supervised:
confine         keeps what fails about one object from stopping anything else
lease           only one operator acts at a time
liveness        /healthz and /readyz
metrics         /metrics
"""
