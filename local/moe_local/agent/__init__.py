"""The node agent: a small kubelet that runs each container's command as a process, without a container runtime.

`python -m moe_local.agent --config FILE` starts it; `config.AgentConfig` says what the file holds. Where to look:

* `agent` gives every pod a `worker`; `lifecycle` decides (purely) what to start and stop, `status` what to report;
* `container` runs one container's attempts, `processes` finds and signals them, `shim` supervises each of them;
* `sandbox`, `isolation`, `volumes`, `environment` and `names` make what a container sees;
* `node`, `provisioner`, `server`, `events` are what the cluster sees.

What a real node has and this one has not, so that it stays untested here: security contexts (everything runs as the
user of the agent), resource limits (requests count, nothing is capped), network policy, addresses of Services (names
stand for pods, so port and target port must be equal), host paths, `kubectl exec` and `port-forward` (pods listen on
loopback addresses of this machine). A command is not process 1: unlike in a container, a program that does not
handle SIGTERM ends by it.
"""
