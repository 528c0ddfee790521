"""Hydra sweeper that searches with Optuna, ``hydra/sweeper=optuna``.

Hydra imports every module of ``hydra_plugins`` whenever it starts, so Optuna is imported when a search begins.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from typing_extensions import override

from metric_module.errors import UserError
from metric_module.sweeps.ledger import REPEATED, read_plan

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

STORAGE = "optuna.db"
_REPEATS = "repeats"  # attribute of a trial with the figure of a job that had failed before: the trial of that job


class OptunaSweeper(Sweeper):
    """Search for good values of some options with Optuna's tree-structured Parzen estimator.

    The study is ``optuna.db`` in the folder of the sweep, with a trial for each job. A resumed sweep launches its
    trials again, of which finished jobs return their figure at once. The values of a job depend on the seed, its number
    and the trials before it, so a stop does not change them.

    Args:
        n_trials: Number of jobs.
        n_jobs: Number of jobs that are proposed together, before the figure of any of them is known.
        n_startup_trials: Number of jobs whose values are drawn at random.
        seed: Seed of the draws; that of the run if None.
        direction: ``maximize`` or ``minimize``.
        params: Search space by key, in Hydra's grammar; the command line adds to it.

    References:
        Bergstra et al., "Algorithms for Hyper-Parameter Optimization" (NeurIPS 2011), section 4.
    """

    def __init__(
        self, n_trials: int, n_jobs: int, n_startup_trials: int, seed: int | None, direction: str, params: Any
    ) -> None:
        self.n_trials, self.n_jobs, self.n_startup_trials = n_trials, n_jobs, n_startup_trials
        self.seed, self.direction, self.params = seed, direction, dict(params or {})

    @override
    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Check the options, and build the launcher."""
        self.seed = config.seed if self.seed is None else self.seed
        for name, least in (("n_trials", 1), ("n_jobs", 1), ("n_startup_trials", 0), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise UserError(f"hydra.sweeper.{name}: expected an integer of {least} or more, got {value!r}")
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    @override
    def sweep(self, arguments: list[str]) -> None:
        """Propose jobs, launch them, and tell the study their figures.

        Args:
            arguments: Overrides of the sweep.

        Raises:
            UserError: If Optuna is not installed, an override is no search space, or there is no figure to follow.
        """
        assert self.launcher is not None
        assert self.config is not None
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        words = parser.parse_overrides([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        folder = Path(self.config.hydra.sweep.dir)
        if not read_plan(folder).monitor:
            raise UserError("hydra/sweeper=optuna: the evaluation names no main figure; give one, monitor=val/...")
        study = open_study(folder, self.direction)
        space = {word.get_key_element(): distribution(word) for word in words if word.is_sweep_override()}
        if not space:
            raise UserError("hydra/sweeper=optuna: expected a search space, such as 'margin=interval(0.05,0.5)'")
        for first in range(0, self.n_trials, self.n_jobs):
            last = min(first + self.n_jobs, self.n_trials)
            trials = self._proposed(study, space, last)[first:last]
            jobs = [[_chosen(word, trial) for word in words] for trial in trials]
            self.validate_batch_is_legal(jobs)
            for trial, result in zip(trials, self.launcher.launch(jobs, initial_job_idx=first), strict=True):
                _tell(study, trial, result.return_value)

    def _proposed(self, study: Study, space: dict[str, BaseDistribution], count: int) -> list[FrozenTrial]:
        """Return the trial of each job; ask for those that the study does not have yet."""
        import numpy as np
        from optuna.samplers import TPESampler

        while len(found := _trials(study, space)) < count:
            seed = int(np.random.SeedSequence([self.seed or 0, len(found)]).generate_state(1)[0])
            study.sampler = TPESampler(seed=seed, n_startup_trials=self.n_startup_trials, constant_liar=self.n_jobs > 1)
            study.ask(space)
        return found


def open_study(folder: Path, direction: str) -> Study:
    """Open the study of a sweep, or begin it.

    Args:
        folder: The folder of the sweep.
        direction: ``maximize`` or ``minimize``.

    Raises:
        UserError: If Optuna is not installed, or the file is no study.
    """
    try:
        import optuna
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        raise UserError("hydra/sweeper=optuna needs Optuna: pip install 'lightning-triplets[optuna]'") from None
    if direction not in ("maximize", "minimize"):
        raise UserError(f"hydra.sweeper.direction: expected maximize or minimize, got {direction!r}")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder / STORAGE
    address, way = f"sqlite:///{path.resolve()}", optuna.study.StudyDirection[direction.upper()]
    try:
        return optuna.create_study(storage=address, study_name="sweep", direction=way, load_if_exists=True)
    except (SQLAlchemyError, RuntimeError, optuna.exceptions.OptunaError) as error:
        problem = f"{path}: cannot be read as a study of Optuna {optuna.__version__} ({type(error).__name__})"
        raise UserError(f"{problem}; without this file, resume_sweep proposes the jobs again") from error


def distribution(word: Override) -> BaseDistribution:
    """Translate Hydra's sweep syntax into a distribution of Optuna.

    Numbers are ``interval(0.05,0.5)``, ``int(interval(1,8))`` and ``range(0,10,2)``, and ``tag(log, ...)`` of them
    searches the logarithm. Everything else, as ``a,b``, ``choice(a,b)`` and ``glob(*)``, is a list of choices.

    Args:
        word: An override that is a sweep.

    Raises:
        UserError: If it repeats a setting, as a seed does, or is no search space.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if word.key_or_group in REPEATED:
        raise UserError(f"{word.input_line}: a search would choose the best by chance; give one value")
    sweep: Any = word.value()
    log, numbers = "log" in sweep.tags, not word.is_choice_sweep()
    if sweep.tags - {"log"} or (log and not numbers):
        raise UserError(f"{word.input_line}: expected no tag but log, on numbers alone")
    try:
        if not numbers:
            return CategoricalDistribution(list(word.sweep_string_iterator()))
        interval = word.is_interval_sweep()
        ends = (sweep.start, sweep.end) if interval else (min(sweep.range()), max(sweep.range()))
        kind = IntDistribution if type(ends[0]) is type(ends[1]) is int else FloatDistribution
        return kind(*ends, log=log) if interval else kind(*ends, log=log, step=abs(sweep.step))
    except ValueError as error:
        raise UserError(f"{word.input_line}: no search space ({error})") from error


def _trials(study: Study, space: dict[str, BaseDistribution]) -> list[FrozenTrial]:
    """List the trials of the jobs in order; one that a crash left without all its values is of no job."""
    found = study.get_trials(deepcopy=False)
    return [trial for trial in found if trial.params.keys() == space.keys() and _REPEATS not in trial.user_attrs]


def _chosen(word: Override, trial: FrozenTrial) -> str:
    """Write an override with the value of a trial."""
    key = word.get_key_element()
    return f"{key}={trial.params[key]}" if key in trial.params else str(word.input_line)


def _tell(study: Study, trial: FrozenTrial, figure: float | None) -> None:
    """Tell the study the figure of a job, None or NaN if it has none; finished trials cannot be told another one."""
    from optuna.trial import TrialState, create_trial

    found = figure is not None and math.isfinite(figure)
    if not trial.state.is_finished():
        study.tell(trial.number, figure if found else None, None if found else TrialState.FAIL)
    elif found and trial.state == TrialState.FAIL:
        again, params, distributions = {_REPEATS: trial.number}, trial.params, trial.distributions
        if all(one.user_attrs != again for one in study.get_trials(deepcopy=False)):
            study.add_trial(create_trial(value=figure, params=params, distributions=distributions, user_attrs=again))
