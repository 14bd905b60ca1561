"""A grader's verdicts on a model's answers, item by item, which are kept like the answers themselves.

Verdicts depend on the answers and on the grader (its name, image and command). So a candidate's predecessor is not graded
again, and a grader that was changed judges everything again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from moe_formats import store
from moe_formats.format import Format
from moe_formats.job_config import Grader, Grading
from moe_trainer.evaluators.accuracy import Judged
from moe_trainer.evaluators.answers import Answers, AnswersKey
from moe_trainer.evaluators.exchange import Question, read_verdicts, write_questions
from moe_trainer.evaluators.tasks import Item
from moe_trainer.storage.cells import read_cell, write_cell


class VerdictsKey(Format):
    """What verdicts depend on, and nothing else."""

    answers: AnswersKey
    grader: Grader


class Verdicts(Format):
    """A grader's verdicts on one model's answers."""

    key: VerdictsKey
    right: tuple[float, ...] = Field(description="0 or 1 for each item, in the order of the tasks.")


@dataclass(frozen=True)
class Asked:
    """One grading: a grader, and the answers of all models of an evaluation to the same items."""

    grading: Grading
    items: Sequence[Item]
    answers: Sequence[Answers]
    #: The pool's store, and the folder in it in which verdicts are kept.
    store: Path
    cells: str
    #: The folder that is shared with the grader.
    folder: Path

    def hand_out(self) -> int:
        """Write the questions whose verdicts are not kept yet, and return their number.

        A grader always gets questions: if all verdicts are known, because an earlier attempt was killed, it is asked
        everything again.
        """
        unknown = [answers for answers in self.answers if self._kept(answers) is None]
        questions = {asked.id: asked for answers in unknown or self.answers for asked in self._ask(answers)}
        write_questions(self.folder, questions)
        return len(questions)

    def take_in(self) -> list[Judged]:
        """Return each model's answers with their verdicts, from those kept or from the grader's output, which are then kept.

        Raises TransientError (GraderFailed) if the grader's output is not what was asked for.
        """
        kept = [(answers, self._kept(answers)) for answers in self.answers]
        asked = {question.id for answers, right in kept if right is None for question in self._ask(answers)}
        verdicts = read_verdicts(self.folder, asked, self.grading) if asked else {}
        return [
            Judged(answers, self._keep(answers, verdicts) if right is None else right)
            for answers, right in kept
        ]

    def _ask(self, answers: Answers) -> list[Question]:
        return [Question.of(item, said) for item, said in zip(self.items, answers.completions, strict=True)]

    def _kept(self, answers: Answers) -> tuple[float, ...] | None:
        kept = read_cell(self.store, self._path(answers), Verdicts)
        return kept.right if kept is not None and kept.key == self._key(answers) else None

    def _keep(self, answers: Answers, verdicts: Mapping[str, float]) -> tuple[float, ...]:
        right = tuple(verdicts[question.id] for question in self._ask(answers))
        write_cell(self.store, self._path(answers), Verdicts(key=self._key(answers), right=right))
        return right

    def _key(self, answers: Answers) -> VerdictsKey:
        return VerdictsKey(answers=answers.key, grader=self.grading.grader)

    def _path(self, answers: Answers) -> str:
        return f"{self.cells}/{store.short(self._key(answers).content_digest())}.json"
