"""Factor of the guidance weight over training, a pure function of the step.

Each function takes the step (from 0) and the total number of steps and returns a factor in [0, 1].
In a config it is given as ``_target_`` with ``_partial_: true``. Lengths are shares of training.
"""

from typing import Protocol

from glioma_xai.errors import ConfigError


class Schedule(Protocol):
    """What the objective calls at every step."""

    def __call__(self, step: int, total_steps: int) -> float:
        """Return the factor at this step."""
        ...


def _progress(step: int, total_steps: int) -> float:
    """Share of training that lies behind, in [0, 1)."""
    if not 0 <= step < total_steps:
        raise ConfigError(
            f"a schedule needs 0 <= step < total_steps, got step={step} and "
            f"total_steps={total_steps}. Count the optimizer's steps from 0."
        )
    return step / total_steps


def _check_share(value: float, name: str) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"schedule {name} must be a share in [0, 1], got {value}. Use 0.2.")


def constant(step: int, total_steps: int) -> float:
    """Return 1 at every step."""
    _progress(step, total_steps)
    return 1.0


def warm_up(step: int, total_steps: int, *, share: float = 0.2, delay: float = 0.0) -> float:
    """Return 0 during ``delay``, then rise linearly to 1 over ``share`` of training, then stay.

    ``share=0`` is a step from 0 to 1 at the end of the delay (guidance after a warm start). The
    step on which the rise begins has the factor 0.

    Args:
        step: Number of steps done.
        total_steps: Number of steps in all.
        share: Length of the rise, a share of training.
        delay: Length of the time before it, a share of training.

    Returns:
        In [0, 1].

    Raises:
        ConfigError: If a share is outside [0, 1] or the step outside training.
    """
    _check_share(share, "share")
    _check_share(delay, "delay")
    behind = _progress(step, total_steps) - delay
    if behind < 0:
        return 0.0
    return 1.0 if behind >= share else behind / share


def increasing(step: int, total_steps: int, *, power: float = 1.0) -> float:
    """Rise from 0 at the first step to 1 at the last, as a power of the share of training.

    Args:
        step: Number of steps done.
        total_steps: Number of steps in all.
        power: 1 is linear, 2 starts slowly, 0.5 quickly; positive.

    Returns:
        In [0, 1]; 1 if there is one step only.

    Raises:
        ConfigError: If ``power`` is not positive or the step outside training.
    """
    if not 0 < power < float("inf"):
        raise ConfigError(f"schedule power must be a finite number > 0, got {power}. Use 1.")
    _progress(step, total_steps)
    return 1.0 if total_steps == 1 else float((step / (total_steps - 1)) ** power)
