"""What a phantom cohort consists of: settings, and class, site and shortcut of every patient."""

from dataclasses import dataclass

from glioma_xai.data.patient import Grade, Stream, stream
from glioma_xai.data.shortcuts import SHORTCUTS, Shortcut
from glioma_xai.errors import ConfigError

_LIMITS: dict[str, tuple[type, float, float]] = {
    "subjects": (int, 2, 9999),
    "seed": (int, 0, 2**32 - 1),
    "shortcut_strength": (float, 0, 1),
    "slices": (int, 1, 64),
    "difficulty": (float, 0, 5),
    "sites": (int, 1, 26),
    "site_strength": (float, 0.5, 1),
    "spacing_mm": (float, 1, 4),
}


@dataclass(frozen=True)
class PhantomSettings:
    """Everything that decides a cohort's bytes.

    Args:
        subjects: Number of patients, half of them HGG.
        seed: Source of all randomness; patient i is the same however many there are.
        shortcut: Cue outside the tumour that gives the class away.
        shortcut_strength: Probability that the cue agrees with the class (present in HGG, absent in
            LGG): 1 always, .5 independent of it, 0 reversed.
        slices: Axial slices around the tumour's centre; None for whole volumes.
        difficulty: Overlap of the classes; no classifier is right more often than
            Phi(1 / difficulty).
        sites: Number of hospitals, each with its own scanner.
        site_strength: Probability that the hospital agrees with the class (A, C, ... HGG; B, D, ...
            LGG); at .5 every hospital has as many of each.
        spacing_mm: Edge of a voxel.

    Raises:
        ConfigError: If a value is of the wrong kind or out of range.
    """

    subjects: int = 200
    seed: int = 0
    shortcut: Shortcut = "none"
    shortcut_strength: float = 1.0
    slices: int | None = 8
    difficulty: float = 0.6
    sites: int = 4
    site_strength: float = 0.5
    spacing_mm: float = 2.0

    def __post_init__(self) -> None:
        if self.shortcut not in SHORTCUTS:
            raise ConfigError(
                f"shortcut must be one of {', '.join(SHORTCUTS)}, "
                f"got {self.shortcut!r}. Choose one."
            )
        for name, (kind, low, high) in _LIMITS.items():
            value = getattr(self, name)
            if name == "slices" and value is None:
                continue
            number = isinstance(value, (int, kind)) and not isinstance(value, bool)
            if not (number and low <= value <= high):
                noun = "a whole number" if kind is int else "a number"
                raise ConfigError(
                    f"{name} must be {noun} in [{low:g}, {high:g}], got {value!r}. "
                    f"Set {name} to such a number."
                )


@dataclass(frozen=True)
class Enrolment:
    """One patient before anything is drawn.

    Args:
        number: Position in the cohort, from 0.
        grade: Class.
        site: Number of the site.
        shortcut: Whether the pictures carry the shortcut.
    """

    number: int
    grade: Grade
    site: int
    shortcut: bool

    @property
    def site_name(self) -> str:
        """Name of the site, ``SiteA`` to ``SiteZ``."""
        return f"Site{chr(ord('A') + self.site)}"

    @property
    def patient_id(self) -> str:
        """Folder and file prefix in the style of BraTS 2018, the site in it."""
        return f"Phantom_{self.site_name}_{self.number + 1:04d}_1"


def enrol(settings: PhantomSettings, number: int) -> Enrolment:
    """Decide class, site and presence of the shortcut, whatever the number of patients.

    Patients come in pairs, one of each class in random order, and a pair shares its site, so that
    classes and sites are balanced. With ``site_strength`` above .5 some patients move to a site of
    their class.
    """
    pair, second = divmod(number, 2)
    first_is_high = stream(settings.seed, pair, Stream.GRADE).random() < 0.5
    high = first_is_high != bool(second)
    site = pair % settings.sites
    rng = stream(settings.seed, number, Stream.SITE)
    own = range(0 if high else 1, settings.sites, 2)
    if own and rng.random() < 2 * settings.site_strength - 1:
        site = int(rng.choice(own))
    agrees = stream(settings.seed, number, Stream.PRESENCE).random() < settings.shortcut_strength
    present = settings.shortcut != "none" and high == bool(agrees)
    return Enrolment(number, "HGG" if high else "LGG", site, present)
