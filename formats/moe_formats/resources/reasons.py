"""Every reason that a condition or an event can have, with what it means and what to do.

docs/reasons.md is generated from this table.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Reasons in CamelCase, each with its meaning, which docs/reasons.md shows."""

    meaning: str

    def __new__(cls, value: str, meaning: str = "") -> "Reason":
        """Attach the meaning to the member."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    # -- going well
    READY = "Ready", "Everything that the spec asks for is there."
    PROGRESSING = "Progressing", "Work is under way; the message says which. Nothing to do."
    SETTLED = "Settled", "Nothing is left to do for the current spec."
    SNAPSHOT_TAKEN = "SnapshotTaken", "The data was read, filtered, split and stored under its digest."
    BASE_PINNED = "BasePinned", "The revision of the base Expert that this Expert starts from is fixed."
    FROM_PRESET = "FromPreset", "The Expert is initialised from a preset, so there is no base to wait for."
    IMPORTED = (
        "Imported",
        "The Expert starts from a checkpoint in a data store, so there is no base to wait for.",
    )
    TRAINED = (
        "Trained",
        "The newest revision is trained: its weights are stored and their digest is recorded.",
    )
    EVALUATED = (
        "Evaluated",
        "The newest revision was measured, and the evidence is in the status of its ExpertRevision. For a pool: a new table was "
        "made, and the message says how well it routes.",
    )
    PROMOTED = "Promoted", "The newest revision passed the promotion gate."
    PINNED = (
        "Pinned",
        "spec.revision names the revision that serves. Remove it to serve the current revision again.",
    )
    ROLLED_OUT = (
        "RolledOut",
        "The revision that should serve answers with its digest, and every gateway sends requests to it.",
    )
    TARGETS_MET = (
        "TargetsMet",
        "Every target in the spec is met by the unfavourable end of its measured interval.",
    )
    NO_TARGETS = "NoTargets", "The spec has no targets."
    # -- waiting
    PENDING = (
        "Pending",
        "The operator has not come to this yet, or something else has to happen first. Nothing to do.",
    )
    WAITING_FOR_POOL = (
        "WaitingForPool",
        "spec.pool names a pool that does not exist in this namespace. Create the pool, or correct the name.",
    )
    WAITING_FOR_STORAGE = (
        "WaitingForStorage",
        "A claim is not bound or does not exist: the pool's own, or one that a pod of a Job mounts. `kubectl describe pvc` says "
        "why.",
    )
    WAITING_FOR_BASE = (
        "WaitingForBase",
        "The base Expert has no promoted revision yet and is trained first. Nothing to do, unless the base itself is stalled.",
    )
    WAITING_FOR_DATA = (
        "WaitingForData",
        "The snapshot Job is queued. A pool takes one snapshot at a time, those of domains before those of the bases that they "
        "start from.",
    )
    SNAPSHOT_RUNNING = "SnapshotRunning", "The snapshot Job is reading the sources."
    TRAINING = "Training", "The training Job is running. The columns PROGRESS and ETA say how far it is."
    EVALUATING = (
        "Evaluating",
        "The evaluate Job is measuring the newest revision, the current one and the base.",
    )
    WAITING_FOR_SERVER = (
        "WaitingForServer",
        "The servers of the revision are starting. They get no requests before they answer with its digest.",
    )
    WAITING_FOR_GATEWAY = (
        "WaitingForGateway",
        "Not every gateway has reported the newest routing policy yet, or the gateway is starting.",
    )
    STARTING = (
        "Starting",
        "The Job was started, and no pod of it runs yet. If that takes more than a minute, the message says why or where to "
        "look.",
    )
    WAITING_FOR_CAPACITY = (
        "WaitingForCapacity",
        "No node has room for a pod of the Job. The message has what the scheduler said.",
    )
    IMAGE_UNAVAILABLE = (
        "ImageUnavailable",
        "A node cannot pull the image of a pod. The message has what the node said. Correct `images` or the image of the "
        "hardware profile in the chart's values, or the credentials for the registry.",
    )
    POD_NOT_CREATED = (
        "PodNotCreated",
        "The cluster creates no pod for a Job, often because of a ResourceQuota, a LimitRange or an admission policy of the "
        "namespace. `kubectl describe job` shows what was said. The Job goes on by itself when the pod may be created.",
    )
    POD_NOT_STARTED = (
        "PodNotStarted",
        "A node does not start a pod of a Job: a volume cannot be mounted, or the container cannot be created. The message has "
        "what the node said, or the `kubectl describe pod` command that shows it.",
    )
    HOLDOUT_TOO_SMALL = (
        "HoldoutTooSmall",
        "Fewer than 20 clusters are held out, so no decision can be made. Add data. Nothing is refused for good.",
    )
    CELLS_MISSING = (
        "CellsMissing",
        "No holdout has been scored with all served revisions, so the distill Job cannot fit a table; the message names the "
        "holdouts and the revisions. Requests are routed by the table there is, or by Posterior if that table does not know "
        "every Expert.",
    )
    CONTEXT_TOO_SHORT = (
        "ContextTooShort",
        "A model sees too few tokens for a segment of the pool's evaluation.segmentBytes and the text before it, or would be "
        "trained on sequences that are too short. The message names the field and the number of tokens that is needed.",
    )
    INVALID_CONFIG = (
        "InvalidConfig",
        "A Job was asked for something that this version of the trainer cannot do. The message names the field.",
    )
    WINDOW_USED_UP = (
        "WindowUsedUp",
        "The newest holdout has been used for five decisions, and may not be used for more. The next decision waits for new "
        "data.",
    )
    RETRYING = (
        "Retrying",
        "An attempt failed for a reason that may pass, and is made again. The message has the reason.",
    )
    PAUSED = (
        "Paused",
        "spec.paused is true: no new work starts, and what serves goes on. Set it to false to continue.",
    )
    NOT_SERVING = (
        "NotServing",
        "Nothing serves. For an Expert: no revision has been promoted yet, or spec.serving.replicas is 0. For a pool: none of "
        "its Experts serves yet, so there is no gateway. The message says which.",
    )
    TARGETS_UNKNOWN = (
        "TargetsUnknown",
        "A target could not be judged yet. The message names the score and says why it is absent.",
    )
    # -- drift
    NOT_DRIFTED = "NotDrifted", "The current revision fits the Expert's newest text as well as its first."
    NOT_MEASURED = "NotMeasured", "Drift was not measured yet. The message says what it waits for."
    TOO_FEW_WINDOWS = (
        "TooFewWindows",
        "Drift takes two windows after the anchor. New data adds one per delivery.",
    )
    NO_BASE = (
        "NoBase",
        "There is no base to measure drift against: the first revision was trained from a preset.",
    )
    QUALITY_DROP = (
        "QualityDrop",
        "The current revision no longer fits the newest text: it gains less over its base there than on the anchor. The message "
        "has the numbers. Training it further on the newest data is what helps.",
    )
    INPUT_SHIFT = (
        "InputShift",
        "The newest text is harder for the base as well, and the current revision fits it as before. Nothing is trained.",
    )
    DOMAIN_CHANGED = (
        "DomainChanged",
        "The newest text resembles another domain of the pool more than the Expert's own. Look at what the sources deliver.",
    )
    TASK_DROP = "TaskDrop", "Only an evaluator's accuracy fell. status.drift has the accuracies."
    ROUTING_SHIFT = "RoutingShift", "Only the Expert's share of requests moved. status.drift has both shares."
    # -- refused or failed
    TARGETS_MISSED = (
        "TargetsMissed",
        "A target is missed. The message names it, with its value and the measured value.",
    )
    PROMOTION_REFUSED = (
        "PromotionRefused",
        "The promotion gate refused the newest revision. The message names the clause, the numbers and the interval. The last "
        "good revision goes on serving. The same inputs are not trained again; the gate judges anew if spec.targets or "
        "spec.promotion changes.",
    )
    UNKNOWN_PROFILE = (
        "UnknownProfile",
        "spec.training.resources.profile or spec.serving.profile does not name a hardware profile of this installation. The "
        "message lists the profiles.",
    )
    UNKNOWN_STORE = (
        "UnknownStore",
        "A source, an evaluator or the base names a data store that this namespace may not use. The message lists the stores "
        "that it may use.",
    )
    CLAIM_NOT_FOUND = (
        "ClaimNotFound",
        "A source, an evaluator or spec.storage.claim names a PersistentVolumeClaim that does not exist in this namespace. "
        "Create it with the label that the message names, or name another. Nothing starts until then.",
    )
    CLAIM_NOT_ALLOWED = (
        "ClaimNotAllowed",
        "A source, an evaluator or a pool's storage names a PersistentVolumeClaim that may not be used for it: its label "
        "moe-operator.dev/use is missing or says something else, or it is the store of another pool. The message has the field "
        "and the `kubectl label` command; somebody who may change the claim has to run it. Nothing new starts until then. What "
        "runs and serves goes on.",
    )
    UNKNOWN_EVALUATOR = (
        "UnknownEvaluator",
        "The Expert asks for an evaluator that its pool does not define. The message lists those that it defines.",
    )
    UNKNOWN_GRADER = (
        "UnknownGrader",
        "An evaluator of measure container names a grader that this namespace may not use. The message lists those that it may "
        "use; the platform's owner defines them in the chart's values.",
    )
    UNKNOWN_REVISION = (
        "UnknownRevision",
        "spec.revision does not name a promoted revision of this Expert. The message lists the promoted ones.",
    )
    UNKNOWN_PRESET = "UnknownPreset", "base.preset does not name a preset. The message lists the presets."
    BASE_MISSING = (
        "BaseMissing",
        "There is no checkpoint at base.path that can be a base. The message says what is missing.",
    )
    BASE_MISMATCH = (
        "BaseMismatch",
        "The checkpoint at base.path does not have the digest base.digest. The message has both digests.",
    )
    BASE_UNFIT = (
        "BaseUnfit",
        "The weights of the imported checkpoint are not those that its config.json asks for, though every byte is as "
        "base.digest says. The message names the tensor. Take another checkpoint, or correct it and its digest.",
    )
    MODEL_UNSUPPORTED = (
        "ModelUnsupported",
        "The base is not a decoder that can be trained here, or its config.json asks for more than its weights hold. The "
        "message names the field.",
    )
    TOKENIZER_UNSUPPORTED = (
        "TokenizerUnsupported",
        "The base's tokenizer is missing, cannot be read, does not restore the text that it tokenized, or takes too much time "
        "or memory. The message names the file and the limit.",
    )
    CHAT_TEMPLATE_UNSUPPORTED = (
        "ChatTemplateUnsupported",
        "The base's chat template refuses the conversations, writes nothing of them, leaves words out of most answers, does not "
        "show which words are the assistant's, or takes too much time or memory. The message says what is wrong.",
    )
    BASE_CYCLE = (
        "BaseCycle",
        "The bases of some Experts form a cycle, which the message lists. Give one of them another base.",
    )
    BASE_NOT_FOUND = (
        "BaseNotFound",
        "base.expert does not name an Expert of this pool. Create it, or correct the name.",
    )
    POOL_FULL = (
        "PoolFull",
        "The pool has as many Experts as it can route to, and this one was created after them. It starts no work. Delete "
        "another Expert of the pool, or create this one in another pool.",
    )
    EXCEEDS_BUDGET = (
        "ExceedsBudget",
        "The Experts of the pool ask for more servers than its spec.budget.replicas. Raise the budget, or lower "
        "spec.serving.replicas.",
    )
    PATH_NOT_ALLOWED = (
        "PathNotAllowed",
        "The path of a source, an evaluator or a base is empty, absolute, contains `..`, is a link that leads out of its store, "
        "or leads to something that is no regular file, such as a named pipe.",
    )
    INVALID_SCHEDULE = (
        "InvalidSchedule",
        "spec.data.refreshSchedule can never be due. The message says why, and how to correct it. What serves goes on serving.",
    )
    DELIVERY_REFUSED = (
        "DeliveryRefused",
        "What the sources deliver exceeds limits of spec.data.gates, which the message has with the numbers. Nothing of it is "
        "stored or trained on. Correct the files, or the limit: then they are read again at once.",
    )
    DATA_MISSING = (
        "DataMissing",
        "No file matches the path of a source. Put files there, or correct the path. The sources are read again by themselves, "
        "after 15 minutes.",
    )
    DATA_EMPTY = (
        "DataEmpty",
        "The sources have no text, or too little, after filtering. The message says what is missing. The sources of a snapshot "
        "are read again by themselves, after 15 minutes.",
    )
    DATA_UNREADABLE = (
        "DataUnreadable",
        "A file of a source is damaged, or most of it is binary or broken. The message names the file, the first broken record "
        "and what is wrong with it, and the counts.",
    )
    SCHEME_UNSUPPORTED = (
        "SchemeUnsupported",
        "The pool's store was written by a newer version of the trainer, or its scheme.json is damaged or gone. The message "
        "says which file it is.",
    )
    DATA_CHANGED = (
        "DataChanged",
        "A file changed while it was read, and the attempt is made again. Write new files under another name, and rename them "
        "when they are complete.",
    )
    STORE_DENIED = (
        "StoreDenied",
        "An object store refused its credentials, or its Secret lacks a key. The message names the store, the Secret and the "
        "keys.",
    )
    STORE_UNREACHABLE = (
        "StoreUnreachable",
        "An object store does not answer, or too slowly. The attempt is made again.",
    )
    LOSS_NOT_FINITE = (
        "LossNotFinite",
        "The loss became NaN or infinite; the message names the step. Lower the learning rate, or look at the data.",
    )
    DISK_FULL = (
        "DiskFull",
        "The pool's store is full. Enlarge its claim. The last good checkpoint is kept, and the attempt is made again.",
    )
    GRADER_FAILED = (
        "GraderFailed",
        "A grader ended with an error, took too long, or did not write a verdict for every answer. The message has its last "
        "words. No revision is refused or promoted because of it. Correct the program in its image; it is asked again.",
    )
    REPORT_CONTESTED = (
        "ReportContested",
        "Two pods claim the same place in a Job, so at least one of them was not created by the Job controller, and no report "
        "of theirs is believed. The message names them. Delete the one that does not belong, and find out who created it: "
        "whoever may create pods in a namespace can write into its stores. Another attempt is made.",
    )
    PEER_LOST = (
        "PeerLost",
        "A process of a training run on several nodes was lost, and the others ended with it. The next attempt resumes from the "
        "last checkpoint.",
    )
    INTERRUPTED = (
        "Interrupted",
        "A training was asked to stop before its last step, for example because its node is drained. Its last checkpoint is "
        "kept, and the next attempt resumes from it. Nothing to do.",
    )
    CRASHED = (
        "Crashed",
        "A Job or a server failed with an error that nobody foresaw, or one of its processes was killed, often for lack of "
        "memory. The message has the error. Another attempt is made. If it says nothing that you can change, please report it.",
    )
    INVALID_ENVIRONMENT = (
        "InvalidEnvironment",
        "A Job or a server was started without an environment variable that the operator sets for it, or with one that is not "
        "valid; the message names it. Operator and trainer images of different versions can be the cause: use those of one "
        "release.",
    )
    ARTEFACT_CORRUPT = (
        "ArtefactCorrupt",
        "Stored files do not match their manifest, or there are files or links that it does not list, so nothing is loaded. The "
        "message names the file. Remove what was added, restore the files, or train again with a new spec.runID.",
    )
    JOB_FAILED = (
        "JobFailed",
        "A Job failed. The message has the exit code and the last words of its container.",
    )
    DEADLINE_EXCEEDED = (
        "DeadlineExceeded",
        "A Job ran longer than the platform's owner allows. The message has the limit and the value of the chart that sets it. "
        "It is not tried again by itself.",
    )
    CHILD_EDITED = (
        "ChildEdited",
        "An object that the operator created was changed by somebody else. The operator has changed it back.",
    )
    REQUEST_REFUSED = (
        "RequestRefused",
        "The API server refuses what the operator has to do for this object: a quota is used up, an admission policy forbids "
        "it, or the operator's role lacks a permission. The message has what it said. The operator tries it again.",
    )
    INVALID_OBJECT = (
        "InvalidObject",
        "The stored object is not valid: it was probably created with another version of the CRD. The message names the field. "
        "Correct it.",
    )
    INTERNAL_ERROR = (
        "InternalError",
        "The operator failed to process this object; the message has the error. Other objects are not affected. Please report "
        "it.",
    )
    NAME_TAKEN = (
        "NameTaken",
        "Something that the Expert or the pool needs cannot be created, since an object of somebody else has that name. The "
        "operator leaves that object as it is; the message says which it is and whose. Delete it or create it under another "
        "name: the operator goes on by itself within about ten seconds.",
    )
    CHANGED_BY_OTHERS = (
        "ChangedByOthers",
        "What the operator writes into an object of its own is undone again and again, so it leaves the object as it is for "
        "some minutes at a time. The message names the object. Usually two releases of moe-operator act in one namespace, or a "
        "tool applies a version of its own: uninstall one, or take the object out of the tool.",
    )
    NAME_CONFLICT = (
        "NameConflict",
        "The Expert has the same name as its pool, so that `model` in a request could mean either. Create it under another "
        "name.",
    )
    SUPERSEDED = (
        "Superseded",
        "The spec or the data changed before the revision was decided, and another revision took its place. Asking for the same "
        "inputs again resumes it.",
    )
    # -- proposals
    AWAITING_APPROVAL = (
        "AwaitingApproval",
        "The proposal waits until a person with the verb `approve` decides. `moectl proposals NAME` shows why it was made and "
        "what it promises; `moectl approve NAME` or `moectl reject NAME` decides.",
    )
    APPROVAL_VOID = (
        "ApprovalVoid",
        "The approval quotes another evidence digest than the proposal has now, so it approves nothing: what the proposal rests "
        "on has changed. Read the message, then approve the proposal again or reject it.",
    )
    WAITING_FOR_BUDGET = (
        "WaitingForBudget",
        "The proposal is approved, but as many proposals have started within 24 hours as spec.lifecycle.budget of the pool "
        "allows. It starts by itself once one of these starts is 24 hours ago, or when the budget is raised.",
    )
    WAITING_FOR_TURN = (
        "WaitingForTurn",
        "The proposal is approved, but something else is being done with its Expert first; the message says what.",
    )
    EFFECT_SEEN = "EffectSeen", "The proposal was carried out, and its measured effect is as promised."
    EFFECT_NOT_SEEN = (
        "EffectNotSeen",
        "The proposal was carried out, but what was measured afterwards is worse than it promised. `moectl undo NAME` goes "
        "back. In an event of a pool: that happened twice with one act, so a person has to approve each proposal of it until "
        "its mode in spec.lifecycle (for Rebase: spec.base.follow of the Experts) is changed.",
    )
    EFFECT_UNKNOWN = (
        "EffectUnknown",
        "The proposal was carried out. Its effect cannot be compared with what was promised: nothing was, or it could not be "
        "measured, or has not been measured yet. The message says which.",
    )
    REJECTED = (
        "Rejected",
        "A person rejected the proposal. Nothing was done, and the same is not proposed again on that evidence.",
    )
    EXPIRED = (
        "Expired",
        "The proposal had not started when it expired, so nothing was done. If it should still be done, create a proposal by "
        "hand; the operator makes another one only on new evidence.",
    )
    EVIDENCE_CHANGED = (
        "EvidenceChanged",
        "What the proposal rests on no longer holds: the data or the current revision has changed, or what was observed has "
        "passed. Nothing was done. If it holds again before the proposal expires, the proposal is open again.",
    )
    SUBJECT_GONE = (
        "SubjectGone",
        "The Expert that the proposal is about does not exist in its pool, or was deleted and made again under its name. "
        "Nothing more is done; delete the proposal.",
    )
    NOT_POSSIBLE = "NotPossible", "What is proposed cannot be done now. The message says why, and what to do."
    WITHDRAWN = (
        "Withdrawn",
        "The revision had been promoted, and a proposal took that back: a RollBack, or the undoing of the proposal that it was "
        "made for. It no longer serves and is not trained again. Undoing the RollBack promotes it again.",
    )
    UNDO_REFUSED = (
        "UndoRefused",
        "The Expert has changed since the proposal was carried out. The message says how, and how to go back instead.",
    )
    UNDONE = "Undone", "What the proposal did was undone, or nothing had to be: the message says which."
    PROPOSED = (
        "Proposed",
        "The operator proposes something. `moectl proposals` lists it for people to decide.",
    )
    # -- warnings and news (events)
    TWIN_DOMAIN = "TwinDomain", "Another Expert of the pool has the same domain. That is allowed."
    REVISION_CREATED = (
        "RevisionCreated",
        "The Expert's spec or data changed, and a revision was created for it.",
    )
    TRAINING_STARTED = "TrainingStarted", "A training Job was created."
    DATA_UNCHANGED = (
        "DataUnchanged",
        "The new snapshot has the same digest as the one before, so nothing is trained.",
    )
    CHILD_RESTORED = (
        "ChildRestored",
        "An object that the operator created was deleted by somebody else. The operator has created it again.",
    )
