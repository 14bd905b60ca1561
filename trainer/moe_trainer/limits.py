"""What readers of files from outside accept at most: every limit with its unit and its reason, in one place.

Whoever reads a file that somebody else wrote checks it against these numbers first. What exceeds one is an input error
that is not retried (moe_formats.failure.JobError) and names the file, what was found and the limit. All limits are far
above what real models and data have. Imports nothing.
"""

# -- data ------------------------------------------------------------------------------------------------------------

#: Longest line of a jsonl file, and longest conversation, in bytes of UTF-8. What is longer is counted as ``tooLarge`` and
#: left out. The longest lines of published corpora have some megabytes.
RECORD_BYTES = 16 << 20

#: Longest value of a row of a parquet file that is text, in bytes of UTF-8. It is cut into documents of 64 KiB.
#: What is longer is counted as ``tooLarge`` and left out.
VALUE_BYTES = 256 << 20

#: Most lists and objects in one JSON record. Parsed, each takes up to 250 bytes of memory. A conversation has one for
#: each message.
RECORD_CONTAINERS = 1_000_000

#: Deepest nesting of lists and objects in one JSON record. What reads it later gives up at about 200.
RECORD_DEPTH = 100

#: Bytes that a source may unpack to for each byte of its files. Text compresses to a quarter, logs to a fiftieth. Data
#: that is made to exhaust a machine reaches a thousand (gzip) and more (all others).
UNPACKED_RATIO = 200

#: Bytes that a source may unpack to however small its files are, because headers and repetitions weigh more in them.
UNPACKED_FREE_BYTES = 64 << 20

#: Memory that unpacking an xz file may take, in bytes. ``xz -9`` takes 65 MiB. Zstandard's library itself ends at a window
#: of 128 MiB, which ``zstd -19`` stays below; gzip and bzip2 take no more than 4 MiB.
UNPACKING_MEMORY_BYTES = 256 << 20

#: Memory that reading parquet may take, in bytes, on top of what its process has when it starts. Row groups are read page
#: by page, and most writers end a page at 1 MiB. A quarter of it is enough for pages of 100 MB.
PARQUET_MEMORY_BYTES = 2 << 30

#: Longest time without any progress of the process that reads parquet, in seconds. A page takes milliseconds.
PARQUET_SECONDS = 300.0

#: Longest name of an object, in bytes, as in S3.
OBJECT_NAME_BYTES = 1024

#: Longest glob, in characters, and most parts of one. Paths in a spec have at most 256 characters.
GLOB_CHARACTERS = 1024
GLOB_PARTS = 512

#: Most files and folders that are looked at for one glob on a claim, and most that it may match. The matching ones are held
#: in memory, at 300 bytes each.
ENTRIES_LISTED = 5_000_000
FILES_MATCHED = 1_000_000

#: Most objects that are listed for one glob in an object store, and most that it may match. Each thousand is a request.
OBJECTS_LISTED = 1_000_000
OBJECTS_MATCHED = 100_000

#: Seconds for connecting to an object store, without receiving a byte, for one request, for one range of an object with all
#: repetitions, and for listing all that one glob may match. A million objects are listed in some minutes.
STORE_CONNECT_SECONDS = 5.0
STORE_STALL_SECONDS = 20.0
STORE_REQUEST_SECONDS = 60.0
STORE_RANGE_SECONDS = 120.0
STORE_LISTING_SECONDS = 1800.0

#: Longest text that is parsed as Python, in characters. The parser's memory grows with what it reads: up to 0.5 KB for each.
CODE_CHARACTERS = 256 << 10

#: Most bytes of the items of one evaluator that are kept, after the draw. They are held in memory, and every model
#: answers them: 10,000 items of 16 KB are 160 MB.
ITEMS_BYTES = 256 << 20

#: Most combining marks in a row that are put in their canonical order when an answer is compared, because ordering takes
#: time with the square of them; further ones keep their order. Real text has up to about 10 (Unicode's stream-safe format
#: allows 30).
COMBINING_MARKS = 30

#: Most characters of the form of a document in which it is compared with others. The largest conversation has up to 16
#: million, but becomes 100 million if it consists of ligatures of whole phrases, such as U+FDFA. What would have more is
#: counted as ``tooLarge`` and left out.
COMPARABLE_CHARACTERS = 24 << 20

# -- a pool's store --------------------------------------------------------------------------------------------------

#: Largest manifest of a committed folder, in bytes. Each file takes about 150; the largest checkpoints have 1,000 files.
MANIFEST_BYTES = 16 << 20

#: Largest file of a store that is read into memory at once: a cell, a report, the items of an evaluator, in bytes. Items
#: have up to ITEMS_BYTES characters, of up to four bytes each.
STORED_BYTES = 2 << 30

#: Longest line of ``documents.jsonl``, in bytes. A conversation has up to RECORD_BYTES, of which each byte takes up to six
#: as JSON, and an entry for each message.
DOCUMENT_BYTES = 256 << 20

#: Longest line of ``fingerprints.jsonl``, ``clusters.jsonl`` or the pool's registry, in bytes. Ours have about 850.
FINGERPRINT_BYTES = 4096

#: Largest list of an Expert's holdouts (``windows.jsonl``), in bytes. Each takes about 250.
WINDOWS_BYTES = 16 << 20

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
