"""The node agent: a small kubelet that runs each container's command as a process, without a container runtime.

`python -m moe_local.agent --config FILE` starts it; `config.AgentConfig` says what the file holds.
"""
