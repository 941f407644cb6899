"""The error of the verifiers; apart, so that every verifier can import it."""

from __future__ import annotations


class VerificationError(AssertionError):
    """A stage that breaks its own rules: our bug; the message names the pass, layer, core and numbers."""
