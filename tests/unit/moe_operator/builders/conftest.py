import sys
from pathlib import Path

# golden_manifests.py lies beside the tests and is imported by its name.
sys.path.insert(0, str(Path(__file__).parent))
