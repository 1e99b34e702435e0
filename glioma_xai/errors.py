"""Errors that a user can mend: each message says what was expected, what was found, and the fix."""


class GliomaXaiError(Exception):
    """Common parent, so that an entry script can print the message without a traceback."""


class ShapeError(GliomaXaiError, ValueError):
    """Tensors do not fit together."""


class SubjectError(GliomaXaiError, ValueError):
    """A subject or file of a cohort cannot be used."""


class CohortError(GliomaXaiError, ValueError):
    """A cohort as a whole cannot be used: missing folder, one class, split too small, leakage."""


class ConfigError(GliomaXaiError, ValueError):
    """A setting is unknown, out of range, or does not fit another setting."""


class CompatibilityError(GliomaXaiError, TypeError):
    """A network has a layer that the chosen composite cannot treat."""


class RunError(GliomaXaiError, RuntimeError):
    """A run folder or checkpoint cannot be used."""


class NumericsError(GliomaXaiError, ArithmeticError):
    """A computation left the finite numbers.

    Args:
        message: What was expected, found, and what to do.
        everywhere: Whether all processes of a run raise it together, so that one has to say it.
    """

    def __init__(self, message: str, *, everywhere: bool = False) -> None:
        super().__init__(message)
        self.everywhere = everywhere
