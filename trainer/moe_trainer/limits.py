"""What readers of files from outside accept at most: every limit with its unit and its reason, in one place.

Whoever reads a file that somebody else wrote checks it against these numbers first. What exceeds one is an input error
that is not retried (moe_formats.failure.JobError) and names the file, what was found and the limit. All limits are far
above what real models and data have. Imports nothing.
"""

# -- models ----------------------------------------------------------------------------------------------------------

#: Largest ``config.json``, ``generation_config.json``, ``tokenizer_config.json`` or config of an adapter, in bytes. Real
#: ones have some kilobytes; those that list thousands of added tokens have a few megabytes.
CONFIG_BYTES = 16 << 20

#: Largest file of a tokenizer (``tokenizer.json``, ``vocab.json``, ``merges.txt``, ``tokenizer.model``), in bytes. Those
#: of models with 260,000 tokens have 35 MB.
TOKENIZER_BYTES = 256 << 20

#: Largest index of the shards of a checkpoint, in bytes. That of 90,000 tensors has 9 MB.
INDEX_BYTES = 64 << 20

#: Largest header of a safetensors file, in bytes, as in safetensors itself.
HEADER_BYTES = 100_000_000

#: Most values in one JSON file of a model, keys not counted. Parsed, each takes up to some hundred bytes of memory. A
#: tokenizer of 260,000 tokens with 500,000 merges has 2 million, the header of 100,000 tensors 700,000.
JSON_VALUES = 4_000_000

#: Deepest nesting of lists and objects in a JSON file of a model. Real ones have fewer than 10 levels.
JSON_DEPTH = 64

#: Most tensors of a checkpoint, over all its files. The largest published ones have 100,000.
TENSORS = 500_000

#: Most dimensions of a tensor. Decoders have up to 5.
DIMENSIONS = 8

#: Longest name of a tensor, in characters.
TENSOR_NAME_CHARACTERS = 512

#: Most layers of a decoder. Real ones have up to 126.
LAYERS = 1024

#: Most in-layer experts of a layer, and of a bank.
EXPERTS = 4096

#: Largest width of a layer (hidden size, inner width of an in-layer expert), in numbers.
WIDTH = 1 << 20

#: Most attention heads, and largest width of one.
HEADS = 4096

#: Most ids of a tokenizer or an embedding. Real ones have up to 262,144.
VOCABULARY = 1 << 20

#: Longest context that a config may claim, in tokens. The longest published one is 10 million.
CONTEXT_TOKENS = 1 << 24

#: Most tokens that a tokenizer adds to its vocabulary. Real ones add up to 7,000.
ADDED_TOKENS = 100_000

#: Longest token, in characters. Real ones reach some hundreds (runs of spaces or dashes).
TOKEN_CHARACTERS = 4096

#: Most steps of a tokenizer's normalizer, pre-tokenizer or decoder. Real ones have up to 15.
TOKENIZER_STEPS = 64

#: How many times as long the replacements of a normalizer may make a text, in characters. Real ones replace one by one.
TOKENIZER_GROWTH = 64

#: Largest rank of a LoRA adapter.
LORA_RANK = 65_536

#: Most modules that the config of an adapter names. PEFT writes names of kinds, so real ones have ten.
LORA_TARGETS = 100_000

# -- chat templates --------------------------------------------------------------------------------------------------

#: Largest chat template, in bytes. Real ones have up to 64 KB.
TEMPLATE_BYTES = 1 << 20

#: Most passes through loops and calls while one conversation is rendered. A thousand messages take some ten thousand.
TEMPLATE_STEPS = 1_000_000

#: Most characters that a template may make while it renders one conversation, including those that it throws away. The
#: largest request has 4 million.
TEMPLATE_CHARACTERS = 128 << 20

#: Longest time for rendering one conversation, in seconds. Real ones take milliseconds.
TEMPLATE_SECONDS = 10.0

# -- the process that a tokenizer is tried in, and that reads prompts for a server ---------------------------------------

#: Address space of that process, in bytes. A tokenizer of 24 MB with 260,000 tokens takes 0.6 GB of it.
TOKENIZER_MEMORY_BYTES = 4 << 30

#: Longest time for reading a tokenizer in that process, in seconds. One of 24 MB took 14 on a busy processor.
PROBE_SECONDS = 300.0

#: Longest time for encoding one of those samples, which have up to 8,192 characters, or for rendering a conversation of
#: them, in seconds. Real tokenizers take milliseconds.
SAMPLE_SECONDS = 5.0

#: Longest time for turning one prompt into tokens in a server, template included, in seconds. The largest request has 4 MB;
#: a byte-level tokenizer took 2.3 for 3 MB.
PROMPT_SECONDS = 10.0

#: Prompts that a server turns into tokens at the same time. Further ones wait for PROMPT_SECONDS at most.
PROMPTS_AT_ONCE = 4

# -- data ------------------------------------------------------------------------------------------------------------
