"""k-sparse probing of SAEs: the metrics `probe_accuracy` and `probe_auc`, over the tasks of `evaluation.probes`.

The language model reads the labelled texts once for all hooks, and what it gave is kept in main memory; an SAE then only
encodes it. Definitions: docs/metrics.md.

Shape suffixes: M = rows, N = texts, D = d_in, F = d_sae, G = texts of a piece.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from torch import Tensor

from saesweep.activations.labelled import LabelledTexts, read_labelled
from saesweep.activations.text_rows import TextRows, rows_of_texts
from saesweep.activity import doing
from saesweep.errors import UserError
from saesweep.evaluation.sparse_probe import ProbeScore, probe_score, ranked_latents
from saesweep.experiment.check_objective import NO_SKLEARN, has_sklearn
from saesweep.models import LanguageModel
from saesweep.saes import ExportedSAE
from saesweep.specs import BaseRun, ProbesSpec

_ROWS_OF_ACTIVATIONS = 4096


@dataclass(frozen=True)
class _Probe:
    """Which texts one probe tells from which others, as rows of a task's texts; both kinds take turns, as many of each."""

    train_N: NDArray[np.int64]
    test_N: NDArray[np.int64]

    @staticmethod
    def labels(rows_N: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return the class of each row."""
        is_positive_N: NDArray[np.bool_] = np.arange(len(rows_N)) % 2 == 1
        return is_positive_N


class Probes:
    """Measures SAEs by what probes read of their latents.

    Args:
        spec: The tasks, and how they are probed.
        seed: Which texts are drawn.

    Raises:
        UserError: scikit-learn is not installed, or a dataset cannot be read as labelled texts.
    """

    def __init__(self, spec: ProbesSpec, seed: int) -> None:
        if not has_sklearn():
            raise UserError(f"evaluation.probes: {NO_SKLEARN}")
        doing("reading the texts of probes")
        self._spec = spec
        self._tasks = [
            read_labelled(task, f"evaluation.probes.tasks[{number}]", seed) for number, task in enumerate(spec.tasks)
        ]
        self._read: Callable[[LabelledTexts, str], dict[str, TextRows]] | None = None
        self._rows: list[dict[str, TextRows]] = []
        self._baselines: dict[str, dict[str, float]] = {}

    def open(self, model: LanguageModel, run: BaseRun, hooks: Sequence[str]) -> None:
        """Say where texts are read, before anything is measured.

        Args:
            model: The language model.
            run: How it reads texts.
            hooks: Every hook that is going to be asked for.
        """

        def read(task: LabelledTexts, place: str) -> dict[str, TextRows]:
            return rows_of_texts(task.texts, run, model, hooks, pooling=self._spec.pooling, place=place)

        self._read, self._rows, self._baselines = read, [], {}

    @torch.no_grad()
    def measure(self, sae: ExportedSAE, hook: str) -> dict[str, float]:
        """Return the metrics of an SAE: the mean over tasks, and every task by its name.

        `probe_accuracy` and `probe_auc` at the k of the file, `probe_accuracy_activations` on all activations instead of k
        latents, and each `<metric>_<task>`, at every k as `<metric>_<task>_k<k>`.

        Args:
            sae: The exported SAE.
            hook: What it reads.

        Raises:
            UserError: A text cannot be tokenised.
        """
        found: dict[str, float] = {}
        for number, task in enumerate(self._tasks):
            doing(f"probing {task.name}", number, len(self._tasks))
            acts_NF = _latents(sae, self._rows_of(number)[hook])
            for k, score in self._scores(task, acts_NF).items():
                found[f"probe_accuracy_{task.name}_k{k}"] = score.accuracy
                found[f"probe_auc_{task.name}_k{k}"] = score.auc
        means = {
            metric: statistics.fmean(found[f"{metric}_{task.name}_k{self._spec.main_k}"] for task in self._tasks)
            for metric in ("probe_accuracy", "probe_auc")
        }
        return {**means, **self._baseline(hook), **found}

    def _rows_of(self, number: int) -> dict[str, TextRows]:
        assert self._read is not None, "open() comes first"
        while len(self._rows) <= number:
            index = len(self._rows)
            self._rows.append(self._read(self._tasks[index], f"evaluation.probes.tasks[{index}]"))
        return self._rows[number]

    def _scores(self, task: LabelledTexts, acts_NF: csr_matrix) -> dict[int, ProbeScore]:
        """Return the mean over a task's probes at each k."""
        scores: dict[int, list[ProbeScore]] = {k: [] for k in self._spec.ks}
        for probe in _probes(task):
            train_NF, test_NF = acts_NF[probe.train_N], acts_NF[probe.test_N]
            train, test = probe.labels(probe.train_N), probe.labels(probe.test_N)
            order = ranked_latents(train_NF, train)
            for k in self._spec.ks:
                columns = (part[:, order[:k]].toarray() for part in (train_NF, test_NF))
                train_NK, test_NK = columns
                scores[k].append(probe_score(train_NK, train, test_NK, test))
        return {k: _mean(own) for k, own in scores.items()}

    def _baseline(self, hook: str) -> dict[str, float]:
        """Return what the same regression finds of all activations, once for a hook."""
        if hook not in self._baselines:
            found: dict[str, float] = {}
            for number, task in enumerate(self._tasks):
                acts_ND = _pooled_activations(self._rows_of(number)[hook])
                scores = [
                    probe_score(
                        acts_ND[probe.train_N],
                        probe.labels(probe.train_N),
                        acts_ND[probe.test_N],
                        probe.labels(probe.test_N),
                    )
                    for probe in _probes(task)
                ]
                found[f"probe_accuracy_{task.name}_activations"] = _mean(scores).accuracy
            mean = statistics.fmean(found.values())
            self._baselines[hook] = {"probe_accuracy_activations": mean, **found}
        return self._baselines[hook]


def _probes(task: LabelledTexts) -> Iterator[_Probe]:
    """Yield one probe for two classes, the second from the first; else one for each class, from as many of the others."""
    n_classes, n_train, n_test = len(task.classes), len(task.train[0]), len(task.test[0])
    train_CN = np.arange(n_classes * n_train).reshape(n_classes, n_train)
    test_CN = np.arange(n_classes * n_test).reshape(n_classes, n_test) + train_CN.size
    for positive in range(1 if n_classes == 2 else 0, n_classes):
        others = [label for label in range(n_classes) if label != positive]
        yield _Probe(*(_in_turns(rows_CN, positive, others) for rows_CN in (train_CN, test_CN)))


def _in_turns(rows_CN: NDArray[np.int64], positive: int, others: Sequence[int]) -> NDArray[np.int64]:
    """Return rows of the others and of the positive class by turns; the others take turns among themselves."""
    count = rows_CN.shape[1]
    negatives = rows_CN[list(others)].T.ravel()[:count]
    return np.stack([negatives, rows_CN[positive]], axis=1).ravel()


def _latents(sae: ExportedSAE, rows: TextRows) -> csr_matrix:
    """Return the latents of each text, the mean over its rows; few of them are not 0."""
    n_rows = sae.rows_at_once()
    found = []
    for texts, rows_MD in _pieces(rows, n_rows):
        acts = (sae.encode(part_MD.to(sae.device, torch.float32)).float() for part_MD in torch.split(rows_MD, n_rows))
        if max(texts) == 1:
            pooled_GF = torch.cat(list(acts))
        else:  # a product, as sums by index come in any order on a GPU
            shares = torch.split(_shares_GM(texts).to(sae.device), n_rows, dim=1)
            pooled_GF = torch.stack([share_GM @ acts_MF for share_GM, acts_MF in zip(shares, acts, strict=True)]).sum(0)
        found.append(csr_matrix(pooled_GF.cpu().numpy()))
    return vstack(found, format="csr")


def _shares_GM(texts: Sequence[int]) -> Tensor:
    """Return the share that each row has in the mean of each text."""
    counts_G = torch.tensor(texts)
    text_M = torch.repeat_interleave(torch.arange(len(texts)), counts_G)
    return torch.nn.functional.one_hot(text_M, len(texts)).T / counts_G[:, None]


def _pooled_activations(rows: TextRows) -> NDArray[np.float32]:
    """Return the activations of each text, the mean over its rows."""
    return np.concatenate(
        [
            np.stack([part_MD.float().mean(0).numpy() for part_MD in torch.split(rows_MD, list(texts))])
            for texts, rows_MD in _pieces(rows, _ROWS_OF_ACTIVATIONS)
        ]
    )


def _pieces(rows: TextRows, n_rows: int) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Yield (rows of each text, their activations) of as many whole texts as fit; of one where it alone has more rows."""
    starts = [0, *itertools.accumulate(rows.counts)]
    first = 0
    while first < len(rows.counts):
        last = first + 1
        while last < len(rows.counts) and starts[last + 1] - starts[first] <= n_rows:
            last += 1
        yield rows.counts[first:last], rows.rows_MD[starts[first] : starts[last]]
        first = last


def _mean(scores: Sequence[ProbeScore]) -> ProbeScore:
    return ProbeScore(
        statistics.fmean(score.accuracy for score in scores), statistics.fmean(score.auc for score in scores)
    )
