"""A grader as a user would write it: an answer is right if all its letters are of the item's alphabet.

A file of its image says how it does today: `well`, or how it fails.
"""

import json
import os
import sys
from pathlib import Path

assert not os.path.exists("/moe/store"), "a grader must not see the pool's store"
assert not [name for name in os.environ if "JOB_CONFIG" in name or "STORE" in name]
mood = (Path(__file__).parents[1] / "mood").read_text()
if mood == "crash":
    sys.exit("no module named pytest")
with open(os.environ["MOE_GRADER_INPUT"]) as asked, open(os.environ["MOE_GRADER_OUTPUT"], "w") as said:
    for line in asked:
        question = json.loads(line)
        written = question["completion"].split()
        right = bool(written) and set("".join(written)) <= set(question["item"]["alphabet"])
        said.write(json.dumps({"id": question["id"], "score": "yes" if mood == "lie" else right}) + "\n")
