"""Metrics of a space that a task measures: lm-evaluation-harness on a proxy at the end of its trial.

Tasks go by name: those that come with the harness, and those in the folder that the environment variable RAYMIX_TASKS
names (of every node). That folder is chosen by whoever runs a study and never by its space, because a task is code: its
templates and functions are run.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch

from raymix.corpus.shards import TOKENIZER, Corpus
from raymix.corpus.tokenizer import Encoder
from raymix.proxy.shape import ProxyShape
from raymix.space import Metric, SearchSpace, SpaceError


def check_tasks(space: SearchSpace, shapes: Sequence[ProxyShape]) -> None:
    """Refuse metrics that no trial could measure, before the first one.

    Raises:
        SpaceError: a metric without a task, proxies that are encoders, no harness, an unknown task or number of it.
    """
    for metric in space.metrics:
        if metric.task is None:
            raise SpaceError(f"metric {metric.name!r}: nothing measures it on proxies trained here; name its task")
        if any(shape.mask_token is not None for shape in shapes):
            raise SpaceError(f"metric {metric.name!r}: tasks ask for likelihoods of text, which an encoder has not")
        if find_spec("lm_eval") is None:
            raise SpaceError(
                f"metric {metric.name!r}: lm-evaluation-harness is missing: pip install raymix[downstream]"
            )
        _check_task(metric, metric.task)


def measure(
    space: SearchSpace,
    corpus: Corpus,
    model: Any,
    device: torch.device,
    dtype: torch.dtype,
    alive: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """`metric/<name>` of every metric with a task, for a decoder in the weights to be judged.

    Raises:
        SpaceError: a task does not measure what a metric asks for.
    """
    wanted = [metric for metric in space.metrics if metric.task is not None]
    if not wanted:
        return {}
    from raymix.proxy.harness import ProxyLM, numbers_of

    encoder = Encoder((corpus.path / TOKENIZER).read_text(encoding="utf-8"), corpus.end_of_text)
    lm = ProxyLM(model, encoder, space.recipe.context, device, dtype, alive)
    asked = {_question(metric): numbers_of(lm, *_question(metric)) for metric in wanted}
    return {f"metric/{metric.name}": _number(metric, asked[_question(metric)]) for metric in wanted}


def _question(metric: Metric) -> tuple[str, int | None, int | None]:
    """Metrics with the same are numbers of one evaluation."""
    return str(metric.task), metric.shots, metric.limit


def _number(metric: Metric, numbers: dict[str, float]) -> float:
    if metric.measure not in numbers:
        raise SpaceError(f"metric {metric.name!r}: the task {metric.task} measures {', '.join(sorted(numbers))}")
    return numbers[metric.measure]


def _check_task(metric: Metric, task: str) -> None:
    from raymix.proxy.harness import TASKS, load

    try:
        loaded = load(task)
    except Exception as error:  # tasks are code, and load data from the hub: anything may be raised
        raise SpaceError(f"metric {metric.name!r}: the task {task} cannot be loaded: {error}") from None
    if loaded is None:
        raise SpaceError(
            f"metric {metric.name!r}: lm-evaluation-harness has no task {task!r}; one of yours lies in a folder that "
            f"{TASKS} names"
        )
    for name, found in loaded["tasks"].items():
        if found.OUTPUT_TYPE == "generate_until":
            raise SpaceError(f"metric {metric.name!r}: {name} has the model write text, and proxies are only scored")
        if name == task and metric.measure not in found.aggregation():
            raise SpaceError(f"metric {metric.name!r}: {name} measures {', '.join(sorted(found.aggregation()))}")
