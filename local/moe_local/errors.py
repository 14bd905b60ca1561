"""Errors of a local cluster; each says what to do next."""

from __future__ import annotations


class LocalClusterError(Exception):
    """A local cluster could not be started, stopped or asked; `fix` says what to do about it."""

    def __init__(self, message: str, *, fix: str) -> None:
        super().__init__(message)
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.args[0]}\n  to fix: {self.fix}"


class OperatorNotReadyError(LocalClusterError):
    """The cluster runs, but the operator on it does not become ready."""
