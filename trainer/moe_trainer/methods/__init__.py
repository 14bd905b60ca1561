"""How a revision's weights are made from its base's, and how they become a model again.

    method.py       what a method is
    full.py         Full: every weight is trained; the artefact is a checkpoint
    lora.py         LoRA: low-rank updates beside frozen weights (lora_layers.py); the artefact is an adapter
                    (peft_format.py)
    expert_bank.py  ExpertBank: new in-layer experts beside the frozen ones (bank_layers.py); the artefact is a bank
                    (bank_format.py)
    composition.py  the banks of several Experts on one base
    adapter.py      what an adapter says of itself
    artefacts.py    which artefact goes on from which, and loading all kinds

An adapter (a bank is one too) holds what was trained and names its base by path and digest. So wherever a model
is loaded, its base is loaded, and verified, first.
"""
