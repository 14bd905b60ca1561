"""The trainer: Jobs that make snapshots, train, evaluate and distill models, and the servers of trained models.

At the root is one file per command (main.py starts it by its name), and what all commands use. One small command has no
file: ``digest`` is answered by main.py.

    main.py          the program: picks the command, reports failures
    environment.py   what the container tells a Job: folders, addresses and sizes
    component.py     the TorchX component that starts training; the operator imports nothing else of the trainer
    snapshot.py      sources to a snapshot and holdouts; imports a base
    train.py         one revision, from its parent to a committed artefact
    evaluate.py      the evidence for a candidate revision
    handout.py, grade.py   give answers to graders, and put their verdicts into the report
    distill.py       the routing table of a pool
    compose.py       banks of several Experts as one checkpoint
    serve.py         the server of one Expert

Everything else is in packages, which form layers, listed here from the top. A package imports only from the layers below
its own, and nothing from other packages of the same layer; a contract in pyproject.toml enforces this.

    training/        one training run

    methods/         what is trained, and artefacts of every kind
    streaming/       snapshots to batches of tokens
    evaluators/      tasks with answers that can be checked
    distilling/      the routing table
    server/          the HTTP server

    hugging_face/    models and tokenizers of Hugging Face
    evaluation/      models on holdouts, scores and evidence

    parallel/        several processes
    snapshots/       what a snapshot Job does with documents

    models/          models in memory; the presets
    deduplication/   near-duplicates
    sources/         where documents come from

    weights/         tensors in files
    text/            documents and tokenizers
    statistics/      intervals
    moe/             the mixture-of-experts layer and its kernels

    storage/         committed folders (and environment.py)

    untrusted.py     reads what somebody else wrote
    limits.py        how much of it, at most
"""
