"""Every reason a condition or an event can carry, with what it means and what to do.

docs/reasons.md is generated from this table.
"""

from enum import StrEnum


class Reason(StrEnum):
    """CamelCase reasons; the text beside each is its page in the documentation."""

    meaning: str

    def __new__(cls, value: str, meaning: str = "") -> "Reason":
        """Attach the meaning to the member."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    # -- going well
    READY = "Ready", "Everything that was asked for is there."
    PROGRESSING = "Progressing", "Work is under way; the message says which. Nothing to do."
    SETTLED = "Settled", "Nothing is left to do for the current spec."
    SNAPSHOT_TAKEN = "SnapshotTaken", "The data was read, filtered, split and stored under its digest."
    BASE_PINNED = "BasePinned", "The revision of the base that this Expert branches from is fixed."
    FROM_PRESET = "FromPreset", "The Expert is initialised from a preset; it has no base to wait for."
    IMPORTED = "Imported", "The Expert starts from a checkpoint of a data store; it has no base to wait for."
    TRAINED = "Trained", "The newest revision's weights are stored and their digest is recorded."
    EVALUATED = "Evaluated", "The newest revision was measured; its evidence is in the ExpertRevision."
    PROMOTED = "Promoted", "The gate let the newest revision pass."
    PINNED = "Pinned", "spec.revision names the revision that serves; remove it to follow the newest again."
    ROLLED_OUT = "RolledOut", "The promoted revision answers with its digest and every gateway knows it."
    TARGETS_MET = "TargetsMet", "Every target in the spec is met by its interval."
    NO_TARGETS = "NoTargets", "The spec sets no targets."
    # -- waiting
    PENDING = "Pending", "Not looked at yet. Nothing to do."
    WAITING_FOR_POOL = (
        "WaitingForPool",
        "spec.pool names a pool that does not exist in this namespace. Create it, or correct the name.",
    )
    WAITING_FOR_STORAGE = "WaitingForStorage", "The pool's claim is not bound. See `kubectl describe pvc`."
    WAITING_FOR_BASE = (
        "WaitingForBase",
        "The base Expert has no promoted revision yet. It is trained first; nothing to do unless the base"
        " itself is stalled.",
    )
    WAITING_FOR_DATA = (
        "WaitingForData",
        "The snapshot Job is running or queued. A pool's snapshots run one at a time, domains before the "
        "bases they branch from.",
    )
    SNAPSHOT_RUNNING = "SnapshotRunning", "The snapshot Job is reading the sources."
    TRAINING = "Training", "The training Job runs; PROGRESS and ETA say how far it is."
    EVALUATING = (
        "Evaluating",
        "The evaluate Job measures the candidate against its current revision and its base.",
    )
    WAITING_FOR_SERVER = "WaitingForServer", "The server of the promoted revision is starting."
    WAITING_FOR_GATEWAY = "WaitingForGateway", "The gateway has not yet reported the newest routing policy."
    WAITING_FOR_CAPACITY = (
        "WaitingForCapacity",
        "No node has room for the Job's pod now. See the message for what the scheduler said.",
    )
    HOLDOUT_TOO_SMALL = (
        "HoldoutTooSmall",
        "Fewer than 20 held-out clusters: no decision can be made. Add data; nothing is refused for good.",
    )
    CELLS_MISSING = (
        "CellsMissing",
        "The matrix lacks cells of some served revision, so no table can be distilled. Posterior routes meanwhile.",
    )
    CONTEXT_TOO_SHORT = (
        "ContextTooShort",
        "A model cannot see a segment of the pool's evaluation.segmentBytes with the text before it, or is not to be "
        "trained on sequences as long. The message names the field and the tokens that it takes.",
    )
    INVALID_CONFIG = (
        "InvalidConfig",
        "A Job was asked for something that this version of the trainer cannot do; the message names the field.",
    )
    WINDOW_USED_UP = (
        "WindowUsedUp",
        "The holdout was used for five decisions. The next one waits for new data.",
    )
    RETRYING = "Retrying", "An attempt failed for a passing cause and is made again. See the message."
    PAUSED = (
        "Paused",
        "spec.paused is true: no new work starts, what serves goes on. Set it to false to continue.",
    )
    NOT_SERVING = "NotServing", "No revision has been promoted yet."
    TARGETS_UNKNOWN = (
        "TargetsUnknown",
        "A target could not be judged yet; the message names the score and why it is absent.",
    )
    # -- refused or failed
    TARGETS_MISSED = (
        "TargetsMissed",
        "A target is missed; the message names it, what was wanted and what was measured.",
    )
    PROMOTION_REFUSED = (
        "PromotionRefused",
        "The gate refused the newest revision; the message names the clause, the numbers and the "
        "interval. The last good revision goes on serving.",
    )
    UNKNOWN_PROFILE = (
        "UnknownProfile",
        "training.resources.profile names no hardware profile of this installation. The message lists "
        "those there are.",
    )
    UNKNOWN_STORE = (
        "UnknownStore",
        "A source names no data store that this namespace may use. The message lists those there are.",
    )
    UNKNOWN_EVALUATOR = (
        "UnknownEvaluator",
        "The Expert asks for an evaluator that its pool does not define. The message lists those there are.",
    )
    UNKNOWN_GRADER = (
        "UnknownGrader",
        "An evaluator of measure container names no grader that this namespace may use. The message lists those there "
        "are; the platform's owner defines them in the chart's values.",
    )
    UNKNOWN_REVISION = "UnknownRevision", "spec.revision names no promotable revision of this Expert."
    UNKNOWN_PRESET = "UnknownPreset", "base.preset names no preset. The message lists those there are."
    BASE_MISSING = (
        "BaseMissing",
        "base.path holds no checkpoint that can be a base; the message says what it lacks.",
    )
    BASE_MISMATCH = (
        "BaseMismatch",
        "The checkpoint at base.path is another than base.digest says; the message has both digests.",
    )
    MODEL_UNSUPPORTED = (
        "ModelUnsupported",
        "The base is no decoder that can be trained here; the message names the field of its config.json.",
    )
    TOKENIZER_UNSUPPORTED = (
        "TokenizerUnsupported",
        "The base's tokenizer is missing, cannot be read, or does not give text back as it was.",
    )
    CHAT_TEMPLATE_UNSUPPORTED = (
        "ChatTemplateUnsupported",
        "The base's chat template refuses the conversations, or hides which words are the assistant's.",
    )
    BASE_CYCLE = "BaseCycle", "The bases form a cycle; the message spells it. Point one of them elsewhere."
    BASE_NOT_FOUND = (
        "BaseNotFound",
        "base.expert names no Expert of this pool. Create it, or correct the name.",
    )
    EXCEEDS_BUDGET = (
        "ExceedsBudget",
        "What is asked for can never fit the pool's budget. Raise the budget or ask for less.",
    )
    PATH_NOT_ALLOWED = (
        "PathNotAllowed",
        "A source's path is absolute, contains `..` or is a link that leads out of its store.",
    )
    DATA_MISSING = "DataMissing", "No file matches a source's path."
    DATA_EMPTY = (
        "DataEmpty",
        "The sources hold no text after filtering. The message has the counts by reason.",
    )
    DATA_UNREADABLE = (
        "DataUnreadable",
        "A source's file is damaged, or most of it is binary or broken. The message names the file, the first "
        "record that is broken and what is wrong with it, and the counts.",
    )
    DATA_CHANGED = (
        "DataChanged",
        "A file changed while it was read; the attempt is made again. Write new files under another name and"
        " rename them when they are whole.",
    )
    STORE_DENIED = (
        "StoreDenied",
        "An object store refuses its keys, or its Secret lacks one. The message names store, Secret and keys.",
    )
    STORE_UNREACHABLE = (
        "StoreUnreachable",
        "An object store does not answer, or too slowly; the attempt is made again.",
    )
    LOSS_NOT_FINITE = (
        "LossNotFinite",
        "The loss became NaN or infinite; the message names the step. Lower the learning rate, or look at"
        " the data.",
    )
    DISK_FULL = (
        "DiskFull",
        "The store is full. Grow the claim; the last good checkpoint is kept and the attempt is made again.",
    )
    GRADER_FAILED = (
        "GraderFailed",
        "A grader ended with an error, took too long, or wrote something else than a verdict for each answer; the "
        "message has its last words. Nothing is refused or promoted by it: correct the program in its image. It is "
        "asked again meanwhile.",
    )
    PEER_LOST = (
        "PeerLost",
        "A process of a training run on several nodes was lost, and the others ended with it; the next attempt"
        " goes on from the last checkpoint.",
    )
    ARTEFACT_CORRUPT = (
        "ArtefactCorrupt",
        "Stored weights do not match their manifest. Nothing loads them; restore the files or train again"
        " with a new spec.runID.",
    )
    JOB_FAILED = (
        "JobFailed",
        "A Job failed; the message has the exit code and the last words of its container.",
    )
    CHILD_EDITED = "ChildEdited", "An object of the operator was changed by hand; it was put back."
    INTERNAL_ERROR = (
        "InternalError",
        "The operator could not process this object; the message has the error. Others are not affected. "
        "Please report it.",
    )
    NAME_CONFLICT = (
        "NameConflict",
        "The Expert has the name of its pool, so that `model` in a request could not tell them apart. "
        "Create it under another name.",
    )
    SUPERSEDED = (
        "Superseded",
        "The spec or the data changed before the revision was decided; a newer one took its place.",
    )
    # -- warnings and news (events)
    TWIN_DOMAIN = (
        "TwinDomain",
        "Another Expert of the pool has the same domain. That is legal; routing treats them as twins.",
    )
    REVISION_CREATED = "RevisionCreated", "New inputs: a revision was made for them."
    TRAINING_STARTED = "TrainingStarted", "The training Job was created."
    DATA_UNCHANGED = "DataUnchanged", "The new snapshot has the digest of the old one; nothing is trained."
    CHILD_RESTORED = "ChildRestored", "An object of the operator was deleted by hand; it was made again."
