"""From models to manifests: one file an object, keyword-only, pure. Only cluster/ sends what they return.

store            the pool's claim                    revision       an ExpertRevision
snapshot_job     evaluate_job     distill_job        training_job   through TorchX (torchx_scheduler)
server           a served revision                   gateway        the pool's gateway and its policy
pod              what all their pods have in common
"""
