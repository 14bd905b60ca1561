"""Models of Hugging Face as bases: imported, loaded, trained and saved as the directories that transformers knows.

    importing.py      a checkpoint from outside becomes a base in the pool's store; imports no transformers
    directory.py      a directory to a Decoder, whole or in parts, and back
    decoder.py        Decoder: a network of transformers as a CausalModel
    experts.py        its in-layer experts on our layer; usable alone: ``experts_implementation="moe-operator"``
    routers.py        its routers replaced by ours, so that load is measured and balanced
    cache.py          keys and values of the sequences that are being decoded
    conversion.py     which tensors on disk are which in memory
    ties.py           which of them are one weight
    trial.py          tries a base out before it is trained: whether it is a decoder that can be used
    tokenizer.py      its tokenizer and chat template
    conversations.py  conversations as rows of token ids: what training reads, and a server's prompts
    finished_turns.py what goes on from a prompt once the answer is there, also where a template begins thoughts in its prompt
    words.py          whether words stand in what a template writes
    encoding.py       texts with special tokens as ids, continued without doing it again

What it takes to use a tokenizer and a template that somebody else wrote:

    tokenizer_files.py     the tokenizer's files, read and checked
    chat_template.py       the chat template, with what transformers offers to templates
    bounded_sandbox.py     the sandbox in which it runs, with limits of time and memory
    tokenizer_process.py   a process in which both are tried out, and turn a server's prompts into tokens
    tokenizer_child.py     what runs in that process

Imported only where a model is not a preset: importing transformers costs seconds at every start.
"""
