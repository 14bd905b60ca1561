"""The trainer: Jobs that make snapshots, train, evaluate and distill models, and the servers of trained models.

At the root is one file per command (main.py starts it by its name) and what all commands read:

    main.py          the program: picks the command, reports failures
    environment.py   folders, addresses and sizes that the container tells a Job
    component.py     the TorchX component that starts training; the operator imports nothing else of the trainer
    snapshot.py      sources to a snapshot and holdouts; imports a base
    train.py         one revision, from its parent to a committed artefact
    evaluate.py      the evidence for a candidate revision
    handout.py, grade.py   answers to graders, and their verdicts into the report
    distill.py       the routing table of a pool
    compose.py       banks of several Experts as one checkpoint
    serve.py         the server of one Expert

Everything else is in rooms. Each of them imports only rooms below it; a contract in pyproject.toml holds the order.

    training/                       one training run
    methods/                        what is trained, and artefacts of every kind
    streaming/                      snapshots to batches of tokens
    evaluators/, evaluation/        tasks with answers; models on holdouts, scores and evidence
    distilling/, server/            the routing table; the HTTP server
    hugging_face/                   models and tokenizers of Hugging Face
    parallel/                       several processes
    snapshots/                      what a snapshot Job does with documents
    models/                         models in memory; the presets
    deduplication/, sources/        near-duplicates; where documents come from
    weights/, text/                 tensors in files; documents and tokenizers
    moe/                            the mixture-of-experts layer and its kernels
    statistics/                     intervals
    storage/                        committed folders
"""
