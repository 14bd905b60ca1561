"""The node agent: a small kubelet that runs each container's command as a process, without a container runtime.

`python -m moe_local.agent --config FILE` starts it; `config.AgentConfig` says what the file holds. Where to look:

* `agent` gives every pod a `worker`; `lifecycle` decides what to start and stop, `status` what to report (both pure);
* `container` runs the attempts of one container, `processes` finds and signals them, `shim` supervises each;
* `sandbox`, `isolation`, `volumes`, `environment` and `names` create what a container sees;
* `node`, `provisioner`, `server` and `events` are what the cluster sees.

A real node has more, which is not tested here: security contexts (everything runs as the agent's user), resource
limits (requests count, but nothing is capped), network policy, addresses of Services (names resolve to pods, so port
and target port must be equal), host paths, `kubectl exec` and `port-forward` (pods listen on loopback addresses of
this machine). A command is not process 1, so unlike in a container a program that does not handle SIGTERM ends on it.
"""
