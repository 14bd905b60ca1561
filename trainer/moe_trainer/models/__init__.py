"""Models in memory, as the rest of the trainer sees them, and the presets.

    causal_model.py        what training, evaluation and serving need of any model
    preset_model.py        the model of the presets
    attention.py           its attention
    preset_config.py       its sizes, and the presets by name
    preset_format.py       the same on disk: a Hugging Face directory
    in_layer.py            in-layer experts of any model, ours or transformers'
    lora_layers.py         low-rank updates of frozen weights (method LoRA)
    bank_layers.py         in-layer experts in addition to the frozen ones (method ExpertBank)
    generation_config.py   how an artefact is sampled by default
    device.py              the device that everything is computed on

Decoders of transformers are in hugging_face/.
"""
