"""Turns models into manifests: pure functions with keyword arguments, one file per object. Only cluster/ sends manifests.

revision         an ExpertRevision
store            the pool's PersistentVolumeClaim
server           the Deployment and the Service of a served revision
gateway          the pool's gateway: its Deployment, its Service and the ConfigMap with its policy
gang             the Service by which training pods on several nodes find one another

training_job     a training attempt, through TorchX
torchx_scheduler TorchX's last step: from an AppDef to a Job
snapshot_job     reads and freezes data
evaluate_job     measures a revision
drift_job        measures a served revision on its Expert's newest text
grade_job        has graders judge answers
matrix_job       fills the full matrix of a pool
distill_job      makes the table of the Distilled strategy

job              what all Jobs have in common
pod              what all pods have in common
metadata         names, labels and owners of children
"""
