"""A dozen prompts, each with the Expert that should answer it. None of them is copied from the training text."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text and the domain it belongs to."""

    text: str
    domain: str


PROMPTS = (
    Prompt(
        "Returns the Laplace transform of a rational function. See also: inverse_laplace_transform",
        "mathematics",
    ),
    Prompt(
        ">>> from sympy import symbols, expand\n>>> x, y = symbols('x y')\n>>> expand((x + y)**3)",
        "mathematics",
    ),
    Prompt(
        "Computes the eigenvalues of a symmetric matrix and returns them with multiplicities.", "mathematics"
    ),
    Prompt(
        "Explanation: the polynomial is irreducible over the rationals, so the field extension", "mathematics"
    ),
    Prompt(
        "def read_config(path):\n    with open(path) as handle:\n        return json.load(handle)\n", "code"
    ),
    Prompt("class Queue:\n    def __init__(self, maxsize=0):\n        self._items = []\n", "code"),
    Prompt("import os\nimport sys\n\nif __name__ == '__main__':\n    sys.exit(main(sys.argv[1:]))\n", "code"),
    Prompt(
        "        except OSError as error:\n            if error.errno != errno.ENOENT:\n                raise",
        "code",
    ),
    Prompt("My fellow citizens, the Congress and the people have shown that this Nation can", "speeches"),
    Prompt(
        "The Secretary of the Treasury reports that the revenue of the last fiscal year exceeded", "speeches"
    ),
    Prompt("We must strengthen our schools and give every American family the chance to", "speeches"),
    Prompt("Our relations with foreign powers continue to be peaceful, and the treaty with", "speeches"),
)
