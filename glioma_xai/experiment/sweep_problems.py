"""What is wrong with the jobs of a sweep, all of it in one message."""

from collections import defaultdict

from hydra.errors import InstantiationException

from glioma_xai.errors import ConfigError, GliomaXaiError, RunError
from glioma_xai.experiment.sweep_plan import Sweep


class Problems:
    """Gathers the problems of all jobs; the same problem of several jobs is one line.

    Args:
        sweep: Whose jobs are checked.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.jobs: dict[str, set[int]] = defaultdict(set)
        self.in_settings = False

    def add(self, number: int, error: Exception) -> None:
        """Note that a job cannot run."""
        if isinstance(error, InstantiationException) and isinstance(error.__cause__, Exception):
            error = error.__cause__
        if isinstance(error, GliomaXaiError):
            self.in_settings |= isinstance(error, ConfigError)
            self.jobs[str(error)].add(number)
        else:
            first = str(error).strip().splitlines()[0] if str(error).strip() else ""
            self.jobs[f"{type(error).__name__}: {first}"].add(number)

    def wrong(self, number: int) -> bool:
        """Whether a job is known not to run."""
        return any(number in jobs for jobs in self.jobs.values())

    def raise_all(self) -> None:
        """Raise if there is any problem, with all of them in one message.

        Raises:
            ConfigError: If one of them is a setting.
            RunError: If not.
        """
        if not self.jobs:
            return
        lines = [f"  {self._who(jobs)}: {message}" for message, jobs in self.jobs.items()]
        kind = ConfigError if self.in_settings else RunError
        raise kind(
            f"the sweep: expected {len(self.sweep.jobs)} jobs without a problem, found "
            f"{len(lines)} problem{'s' if len(lines) > 1 else ''}, and started nothing. "
            "Mend what is listed:\n" + "\n".join(lines)
        )

    def _who(self, jobs: set[int]) -> str:
        if len(jobs) == len(self.sweep.jobs):
            return "every job"
        named = [self.sweep.jobs[number] for number in sorted(jobs)]
        shown = ", ".join(
            f"{job.number} ({job.label})" if job.label else str(job.number) for job in named[:3]
        )
        return f"job {shown}" + (f" and {len(named) - 3} more" if len(named) > 3 else "")
