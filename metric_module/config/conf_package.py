"""Package marker for the yaml files: in a wheel this file is ``metric_module/conf/__init__.py``.

Hydra reads ``pkg://metric_module.conf`` only if it is a package, and ``conf/`` of a checkout holds nothing but yaml.
"""
