"""How a revision's weights are made from its base's, and how they become a model again.

    method.py              what a method is
    full.py                Full: every weight is trained
    lora.py                LoRA: low-rank updates of frozen weights
    expert_bank.py         ExpertBank: new in-layer experts in addition to the frozen ones
    composition.py         the banks of several Experts on one base
    checkpoint_format.py   the artefact of Full: a checkpoint, that is a Hugging Face directory
    peft_format.py         the artefact of LoRA: an adapter of PEFT
    bank_format.py         the artefact of ExpertBank: a bank
    adapter.py             the record of an adapter, and verifying it together with its base
    artefacts.py           loads artefacts of every method; defines which method may train which of them further

An adapter (a bank is one too) holds only what was trained and names its base by path and digest. So wherever a
model is loaded, its base is verified and loaded first.
"""
