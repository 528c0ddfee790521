"""The configuration: where its yaml files are, and the schema that types them."""

from metric_module.config.folder import conf_folder

__all__ = ["conf_folder"]
