"""The folder `world` beside this file is a cluster in memory, imported by its name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
