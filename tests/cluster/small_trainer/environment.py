"""Makes an environment (a folder with bin/) whose `moe-trainer` is the small one."""

import sys
import sysconfig
from pathlib import Path

SCRIPT = """#!{python}
import sys
from small_trainer.main import main
sys.exit(main())
"""


def make_environment(folder: Path) -> Path:
    """Write a virtual environment that finds what the running one has installed, and the small trainer."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    binaries = folder / "bin"
    for part in (packages, binaries):
        part.mkdir(parents=True)
    interpreter = Path(sys._base_executable).resolve()
    (folder / "pyvenv.cfg").write_text(f"home = {interpreter.parent}\ninclude-system-site-packages = false\n")
    for name in ("python", "python3"):
        (binaries / name).symlink_to(interpreter)
    installed = Path(sysconfig.get_paths()["purelib"])
    editable = [line for file in installed.glob("*.pth") for line in file.read_text().splitlines()]
    paths = [str(Path(__file__).parent), str(installed), *(line for line in editable if line.startswith("/"))]
    (packages / "small_trainer.pth").write_text("\n".join(paths) + "\n")
    script = binaries / "moe-trainer"
    script.write_text(SCRIPT.format(python=binaries / "python3"))
    script.chmod(0o755)
    return folder
