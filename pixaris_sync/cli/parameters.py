"""Flags and arguments as they are given: what else there is to check of them, `Settings` and commands check.

typer makes a model by pydantic for each flag of a command, also for those that are not given: with pydantic
itself, that takes 60 ms and 10 MB of every process.
"""

from typing import Any, get_args

from typer._coercion import build_runtime_param


class _AsGiven:
    """Leaves texts, switches and what is not given as they are; all else goes through typer's model."""

    def __init__(self, parameter: Any) -> None:  # noqa: ANN401 - typer's own copy of click
        kind = parameter.type_descriptor.annotation
        self._plain = {str, bool}.intersection((kind, *get_args(kind)))

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:  # noqa: ANN401 - as typer's own
        is_many = param.multiple or param.nargs == -1
        if value is None:
            return () if is_many else None
        if type(value) in self._plain and not is_many:
            return value
        return build_runtime_param(param.type_descriptor).coerce(value, param=param, ctx=ctx)


def taken_as_given(parameters: list[Any]) -> list[Any]:
    """The same parameters of a command."""
    for parameter in parameters:
        if not isinstance(parameter._runtime_param, _AsGiven):  # noqa: SLF001 - typer has no other way
            parameter._runtime_param = _AsGiven(parameter)  # noqa: SLF001 - as above
    return parameters
