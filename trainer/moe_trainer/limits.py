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
