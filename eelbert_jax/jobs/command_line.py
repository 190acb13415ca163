"""The former place of what config files build on one another with; users' config files still import it."""

from eelbert_jax.config_files import load_config, load_config_module, parse_recipe

__all__ = ["load_config", "load_config_module", "parse_recipe"]
