"""Lightning hooks that all data modules share: checks before training, loaders, and resuming within an epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from lightning import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from datamodules.checks import check_at_least, check_given
from datamodules.sampling.dataset import SampleDataset, Samples
from datamodules.sampling.loaders import Loader, TrainLoader, end_workers, make_loader, next_place, place
from datamodules.sampling.pk_sampler import PKSampler, ShardedSampler
from datamodules.sampling.relation_sampler import PairSampler
from datamodules.sampling.splits import check_split
from metric_module.batch import Batch
from metric_module.config.secrets import refuse_secrets
from metric_module.errors import UserError
from metric_module.preprocessing import Preprocessing

MINIMUM = {"eval_batch_size": 1, "num_workers": 0, "image_size": 1}
PATHS = ("path", "root", "table", "fonts")


class ResumableDataModule(LightningDataModule, ABC):
    """Base of all data modules: it checks the data before training, shards it, and resumes at any training batch.

    Nothing here draws from a global random state, and nothing depends on the number of workers. With several processes
    the loaders shard the samples themselves, so ``Trainer(use_distributed_sampler=False)`` is required.

    Settings that several data modules have are checked here, by name: numbers in ``MINIMUM``, and ``PATHS``.

    Subclasses are dataclasses and declare these attributes as fields: fields declared here would come before theirs in
    the order of arguments.

    Attributes:
        seed: Seed of the order of training and of augmentation.
        eval_batch_size: Samples per evaluation batch on each process.
        num_workers: Worker processes of each loader; 0 loads in the main process.
        preflight: Whether to check all samples before the first step, see :meth:`prepare_data`.
        split_seed: Seed of the split, where the data set does not define one.
        fractions: Shares of train, val and test in that split.
        any_items: Whether any items will do, labelled or not, because they are only embedded: what training requires
            of them is not checked. Not an argument, see :meth:`accept_any_items`.

    Raises:
        UserError: A number is out of range.
    """

    seed: int
    eval_batch_size: int
    num_workers: int
    preflight: bool
    split_seed: int
    fractions: Sequence[float]
    any_items = False

    def __post_init__(self) -> None:
        super().__init__()
        for name, least in MINIMUM.items():
            value = getattr(self, name, least)
            if not isinstance(value, Sequence):  # a user's data module may have an image_size of height and width
                check_at_least(f"datamodule.{name}", value, least)
        for name in PATHS:
            check_given(f"datamodule.{name}", getattr(self, name, None))
            refuse_secrets(f"datamodule.{name}", getattr(self, name, None))
        check_split(self.split_seed, self.fractions)
        self._next = (0, 0)
        self._checked: set[bool] = set()
        self._trained_as: Preprocessing | None = None

    def preprocess_as(self, preprocessing: Preprocessing) -> None:
        """Read images as a trained encoder needs them, in place of this data module's own settings.

        Call it before the data is read.

        Args:
            preprocessing: That of the encoder, as its checkpoint keeps it.
        """
        self._trained_as = preprocessing

    @abstractmethod
    def find_problems(self) -> list[str]:
        """List everything that would spoil training or its figures, one line for each kind of problem."""

    def accept_any_items(self) -> None:
        """Read the data set to embed it: every given item, labelled or not."""
        self.any_items = True

    @property
    def for_training(self) -> bool:
        """Whether the samples are for training, so that its requirements apply."""
        doing = None if self.trainer is None else self.trainer.state.fn
        return not self.any_items and doing in {None, TrainerFn.FITTING}

    @abstractmethod
    def train_sampler(self) -> PKSampler | PairSampler:
        """Make the sampler of this process's training batches."""

    @abstractmethod
    def train_dataset(self, sampler: Any) -> Dataset[Any]:
        """Make the data set that the training loader reads, given the result of :meth:`train_sampler`."""

    @abstractmethod
    def eval_loaders(self, split: str) -> Any:
        """Make the loader, or the loaders, of ``val``, ``test`` or ``all`` samples."""

    @override
    def prepare_data(self) -> None:
        """Check all samples before the first step, once for this object, on one process of each machine.

        Raises:
            UserError: Lists the problems found.
        """
        if not self.preflight or {self.for_training, True} & self._checked:
            return
        problems = self.find_problems()
        if problems:
            raise UserError("data: " + "; ".join(problems))
        # Training, validation and test each call this; a file that breaks in between is their loader's to report.
        self._checked.add(self.for_training)

    @override
    def setup(self, stage: str) -> None:
        """Refuse Trainer options that would replace the sampler.

        Raises:
            UserError: ``overfit_batches`` is set.
        """
        if stage == "fit" and self.trainer is not None and self.trainer.overfit_batches:  # type: ignore[attr-defined]
            raise UserError(
                "trainer.overfit_batches: Lightning would draw other batches than the sampler; "
                "use trainer.limit_train_batches"
            )

    @override
    def teardown(self, stage: str) -> None:
        """Forget the position in training, so that another fit begins at the start."""
        if stage == "fit":
            self._next = (0, 0)

    @override
    def on_exception(self, exception: BaseException) -> None:
        """After Ctrl-C, end the workers: torch would wait five seconds for each that waits for its data."""
        if isinstance(exception, KeyboardInterrupt):
            end_workers()

    @override
    def train_dataloader(self) -> DataLoader[Any]:
        """Make the training loader, which starts at the next batch after a resume."""
        sampler = self.train_sampler()
        sampler.start_at(*self._next)
        dataset = self.train_dataset(sampler)
        return make_loader(TrainLoader, dataset, sampler, sampler.batch_size, self.num_workers, self.seed)

    @override
    def val_dataloader(self) -> Any:
        """Load every validation sample once, in order."""
        return self.eval_loaders("val")

    @override
    def test_dataloader(self) -> Any:
        """Load every test sample once, in order."""
        return self.eval_loaders("test")

    @override
    def predict_dataloader(self) -> Any:
        """Load every sample of every split once, by id."""
        return self.eval_loaders("all")

    def sharded_loader(self, samples: Samples, ids: Tensor) -> DataLoader[Batch]:
        """Load some samples once, in order, without augmentation, sharded over the processes.

        Args:
            samples: The data set.
            ids: Samples to load, int64 ``(n,)``.
        """
        sampler = ShardedSampler(len(ids), *place(self.trainer))
        return make_loader(Loader, SampleDataset(samples, ids), sampler, self.eval_batch_size, self.num_workers)

    @cached_property
    def fingerprint(self) -> str | None:
        """Hash that another data set, or another split of this one, does not have; None: not known."""
        return None

    @override
    def state_dict(self) -> dict[str, Any]:
        """Return the position of the next training batch, independent of the number of processes, and the data's hash.

        Returns:
            ``{"epoch": ..., "step": ..., "fingerprint": ...}``.
        """
        epoch, step = next_place(self.trainer)
        return {"epoch": epoch, "step": step, "fingerprint": self.fingerprint}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Start the next training at a position from :meth:`state_dict`.

        Raises:
            UserError: The state comes from training on other data, whose samples have other ids.
        """
        known = state_dict.get("fingerprint")  # absent in checkpoints of earlier versions
        if known is not None and known != self.fingerprint:
            raise UserError(
                "ckpt_path: the checkpoint was trained on other data, or on another split of it (labels, class names "
                "or splits differ), so it cannot be continued here; to start from its weights, leave out ckpt_path and "
                "give module.encoder_weights=<its run>/encoder.safetensors"
            )
        self._next = (state_dict["epoch"], state_dict["step"])
