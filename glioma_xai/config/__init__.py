"""The configuration: where it lies, what it may hold, and what is wrong with one."""

from glioma_xai.config.checking import check_config
from glioma_xai.config.composing import choices, compose_config, conf_dir, known_keys, nearest
from glioma_xai.config.schema import with_defaults

__all__ = [
    "check_config",
    "choices",
    "compose_config",
    "conf_dir",
    "known_keys",
    "nearest",
    "with_defaults",
]
