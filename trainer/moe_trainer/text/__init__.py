"""What documents say, and their tokens.

content.py         a text, or a conversation and who said what in it
tokenizer.py       what the trainer needs of a tokenizer, and the byte-level one of the presets
python_syntax.py   whether a text is Python
"""
