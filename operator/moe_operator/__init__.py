"""The operator: brings Experts and ExpertPools to the state that their specs describe. It never imports torch.

main        the console script: puts the parts together and runs them
config      what the platform's owner decides
subjects    the kinds that are reconciled, one row per kind
handlers/   which kinds are watched
cluster/    input and output
planner/    decisions
builders/   manifests
state       the values that pass between these layers
subset      whether a live object is as desired
logs        structured logs
generate/   writes the CRDs, the chart's copies and the reference pages: `make generate`
"""
