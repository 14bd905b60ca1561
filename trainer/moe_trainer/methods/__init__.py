"""How a revision's weights are made from its base's, and how they become a model again.

    method.py              what a method is
    full.py                Full: every weight is trained
    lora.py                LoRA: low-rank updates beside frozen weights
    expert_bank.py         ExpertBank: new in-layer experts beside the frozen ones
    composition.py         the banks of several Experts on one base
    checkpoint_format.py   what Full leaves: a checkpoint, that is a Hugging Face directory
    peft_format.py         what LoRA leaves: an adapter of PEFT
    bank_format.py         what ExpertBank leaves: a bank
    adapter.py             what an adapter says of itself, and verifying it with its base
    artefacts.py           loads artefacts of every method, and says which may be trained further by which

An adapter (a bank is one too) holds only what was trained and names its base by path and digest. So wherever a
model is loaded, its base is verified and loaded first.
"""
