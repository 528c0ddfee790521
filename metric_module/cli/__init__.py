"""The command line; nothing here imports torch or lightning, so that mistakes are answered at once."""

from metric_module.cli.interrupt import leave

try:
    from metric_module.cli.entry import compose_and_run, job, main, run
    from metric_module.config.checks import check
    from metric_module.config.messages import explain
    from metric_module.config.trust import vouch_for
except KeyboardInterrupt:
    leave()

__all__ = ["check", "compose_and_run", "explain", "job", "main", "run", "vouch_for"]
