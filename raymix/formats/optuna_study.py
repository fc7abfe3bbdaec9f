"""A study's trials as an Optuna study, for its dashboard and plots.

    share/<domain>, n_params, n_tokens    parameters of a trial
    the objective, in its unit            its value; of every checkpoint an intermediate value at its tokens
    done, failed, stopped                 COMPLETE, FAIL, PRUNED
    loss/..., metric/..., seed, reason    user attributes

Trials of several sizes are one study: filter by `n_params` before comparing their values.
"""

from pathlib import Path
from typing import Any

import numpy as np

from raymix.observations import REUSED
from raymix.report.trials import Trial, list_trials
from raymix.report.words import unit
from raymix.simplex import Array
from raymix.space import SearchSpace
from raymix.study import Study
from raymix.target.objective import objective_values

KEY = "raymix_trial_id"  # the user attribute that says which trial was written already


def export_optuna(study: Study, *, storage: str, name: str = "") -> list[str]:
    """Write finished, failed and stopped trials into an Optuna study; trials already there stay as they are.

    Args:
        study: the study to read.
        storage: a URL that Optuna takes (`sqlite:///x.db`, `postgresql://...`), or a path ending in .log or .jsonl
            for its journal file.
        name: of the Optuna study; the space's name if left out.

    Returns:
        What was written, a sentence.

    Raises:
        ValueError: the storage cannot be opened, or holds a study of that name with another direction.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name = name or study.space.name
    try:
        into = optuna.create_study(storage=open_storage(storage), study_name=name, load_if_exists=True)
    except Exception as error:  # each storage raises errors of its own
        raise ValueError(f"{storage}: Optuna cannot open it: {str(error).splitlines()[0]}") from None
    if into.directions != [optuna.study.StudyDirection.MINIMIZE]:
        raise ValueError(f"{storage}: its study {name!r} does not minimise one value: choose another --study-name")
    there = {trial.user_attrs.get(KEY) for trial in into.get_trials(deepcopy=False)}
    found = [trial for trial in _ended(study) if trial.trial_id not in there]
    into.add_trials([_as_optuna(study, trial) for trial in found])
    into.set_user_attr("raymix", {"space": study.space.name, "seed": study.seed, "objective": unit(study.space)})
    return [f"{len(found)} trials written to the Optuna study {name!r} in {storage}"]


def open_storage(storage: str) -> Any:
    """What `optuna.create_study` takes: a URL as it is, a journal file opened."""
    if storage.endswith((".log", ".jsonl")) and "://" not in storage:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        Path(storage).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(storage))
    if "://" not in storage:
        raise ValueError("a storage is a URL such as sqlite:///x.db, or a journal file ending in .log")
    return storage


def _ended(study: Study) -> list[Trial]:
    """Trials of this study itself that are over."""
    trials = list_trials(study.space, study.table())
    return [t for t in trials if not t.trial_id.startswith(REUSED) and study.ledger.status(t.trial_id) is not None]


def _as_optuna(study: Study, trial: Trial) -> Any:
    """One frozen trial of Optuna."""
    from optuna.distributions import FloatDistribution
    from optuna.trial import TrialState, create_trial

    space, asked = study.space, study.ledger.trials[trial.trial_id]
    values = _checkpoints(study, trial)
    state = {"done": TrialState.COMPLETE, "stopped": TrialState.PRUNED}.get(
        str(study.ledger.status(trial.trial_id)), TrialState.FAIL
    )
    shares = {f"share/{name}": share for name, share in space.shares(trial.mix_K).items()}
    told = trial if state == TrialState.COMPLETE and len(trial.rows) else asked
    sizes = {"n_params": told.n_params, "n_tokens": told.n_tokens}
    bounds = _bounds(space)
    return create_trial(
        state=state,
        value=list(values.values())[-1] if state == TrialState.COMPLETE and values else None,
        params=shares | sizes,
        distributions={name: FloatDistribution(0.0, 1.0) for name in shares}
        | {name: FloatDistribution(*_around(bounds[name], size), log=True) for name, size in sizes.items()},
        intermediate_values=values,
        user_attrs=_attributes(study, trial) | {KEY: trial.trial_id, "purpose": asked.purpose, "round": asked.round},
    )


def _bounds(space: SearchSpace) -> dict[str, tuple[float, float]]:
    """The range of scales from the ladder to the target, the same for every trial that is not far from it."""
    scales = np.asarray([*(rung.scale for rung in space.ladder), space.target.scale])
    return {name: (float(scales[:, i].min()) / 1e3, float(scales[:, i].max()) * 1e3)
            for i, name in enumerate(("n_params", "n_tokens"))}  # fmt: skip


def _around(bounds: tuple[float, float], size: float) -> tuple[float, float]:
    """Bounds that hold a size: Optuna refuses others, and takes trials whose ranges differ."""
    return min(bounds[0], size), max(bounds[1], size)


def _checkpoints(study: Study, trial: Trial) -> dict[int, float]:
    """The objective at each checkpoint, by tokens."""
    table = study.table()
    value_B: Array = objective_values(study.space, table.loss_BM[trial.rows])
    tokens_B = table.scale_B2[trial.rows, 1]
    return {int(n): float(value) for n, value in zip(tokens_B, value_B, strict=True) if np.isfinite(value)}


def _attributes(study: Study, trial: Trial) -> dict[str, Any]:
    """Losses and metrics at the last checkpoint, seed, and why it failed or was stopped."""
    out: dict[str, Any] = {"seed": trial.seed}
    if not trial.whole:
        out["reason"] = trial.reason
    if len(trial.rows):
        table = study.table()
        row = table.table.slice(int(trial.rows[-1]), 1).to_pylist()[0]
        kept = [f"loss/{name}" for name in table.eval_domains] + [f"metric/{name}" for name in table.metrics]
        kept += ["seconds", "flops"]
        out |= {name: row[name] for name in kept if row[name] is not None and np.isfinite(row[name])}
    return out
