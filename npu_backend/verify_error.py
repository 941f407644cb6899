"""The error of the verifiers; apart, so that every verifier can import it."""

from __future__ import annotations

from collections.abc import Callable


class VerificationError(AssertionError):
    """A stage that breaks its own rules: our bug; the message names the pass, layer, core and numbers."""


def require(holds: bool, message: Callable[[], str]) -> None:
    """Raises VerificationError unless `holds`; the message is only made then."""
    if not holds:
        raise VerificationError(message())
