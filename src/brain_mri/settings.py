"""Kedro's settings of the project."""

import warnings

from kedro.config import OmegaConfigLoader
from omegaconf.resolvers import oc

from brain_mri.cluster.connection import hadoop_user
from brain_mri.hooks import ProjectHooks

# Kedro 1.7 calls OmegaConf 2.4 by an older name; nothing that a user could do about it.
warnings.filterwarnings("ignore", message=r"register_new_resolver\(\) is deprecated")

HOOKS = (ProjectHooks(),)

CONFIG_LOADER_CLASS = OmegaConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "config_patterns": {"spark": ["spark*", "spark*/**"]},
    # Kedro resolves oc.env in credentials only; a storage root from the environment is no secret.
    "custom_resolvers": {"oc.env": oc.env, "hadoop_user": hadoop_user},
    # An environment changes single keys of a parameter file, not whole sections.
    "merge_strategy": {"parameters": "soft"},
}
