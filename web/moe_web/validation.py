"""Validates what clients send by models of pydantic, so that an error costs little and says what is wrong.

Where a field takes a value of several kinds, which kind it is gets decided by its first element before anything is
validated. Otherwise there would be an error object for each element and each kind that it might have been: a thousand
times the body's memory, and a reason that is often about another kind than the client's. For the same end, mark lists
of a model with `fail_fast`.
"""

from collections.abc import Iterable

from pydantic import BaseModel, Discriminator, ValidationError


def _kind_of_prompt(value: object) -> str | None:
    if isinstance(value, list):
        first = value[0] if value else ""
        if isinstance(first, list):
            return "many_ids"
        return "many" if isinstance(first, str) else "ids" if type(first) is int else None
    return "one" if isinstance(value, str) else None


def _one_or_many(value: object) -> str | None:
    return "one" if isinstance(value, str) else "many" if isinstance(value, list) else None


#: The kind of a prompt: a text (tag `one`), texts (`many`), token ids (`ids`), or several lists of these (`many_ids`).
PROMPT_KIND = Discriminator(
    _kind_of_prompt,
    custom_error_type="prompt",
    custom_error_message="give a text, a list of texts, a list of token ids, or a list of such lists",
)


def text_or_list(of: str) -> Discriminator:
    """Return the discriminator of a text (tag `one`) and a list (tag `many`); `of` is what it is a list of."""
    message = f"give a text, or a list of {of}"
    return Discriminator(_one_or_many, custom_error_type="text_or_list", custom_error_message=message)


def first_error(error: ValidationError, models: Iterable[type[BaseModel]]) -> tuple[str, str]:
    """Return the field of the request that is wrong, and where in it and why, as a sentence.

    `models` are all models that the request consists of. Their fields are what a client knows; the location that
    pydantic gives also has the tags of kinds.
    """
    known = {name for model in models for name in model.model_fields}
    first = error.errors(include_url=False, include_input=False)[0]
    path = [str(part) for part in first["loc"] if isinstance(part, int) or part in known]
    what = "Input should be an object" if first["type"] == "model_type" else first["msg"]
    return path[0], f"{'.'.join(path)}: {what}"
