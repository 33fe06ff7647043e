"""Kedro's settings of the project."""

from kedro.config import OmegaConfigLoader
from omegaconf.resolvers import oc

from brain_mri.hooks import ProjectHooks

HOOKS = (ProjectHooks(),)

CONFIG_LOADER_CLASS = OmegaConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "config_patterns": {"spark": ["spark*", "spark*/**"]},
    # Kedro resolves oc.env in credentials only; a storage root from the environment is no secret.
    "custom_resolvers": {"oc.env": oc.env},
    # An environment changes single keys of a parameter file, not whole sections.
    "merge_strategy": {"parameters": "soft"},
}
