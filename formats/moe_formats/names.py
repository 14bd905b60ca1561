"""What names must look like, wherever a document has one."""

from typing import Annotated

from pydantic import Field

#: A name from which names of other objects are derived, such as an Expert's: at most 40 characters.
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$", max_length=40)]

#: A name of any object, such as a revision's: at most 63 characters.
ObjectName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$", max_length=63)]

#: A name of an evaluator, for example `exactMatch`.
EvaluatorName = Annotated[str, Field(pattern=r"^[a-z][a-zA-Z0-9-]{0,39}$", max_length=40)]
