"""Whether the parts of a space fit together: names referred to, sources, priors, trials left to search with."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raymix.space import SearchSpace

LEAST_SEARCH = 4  # trials without which there is no law, and so no proposal to confirm


def check_names(space: "SearchSpace") -> None:
    """Every name is given once, and what is referred to is there; else ValueError with the name."""
    known, measured = space.domain_names, space.eval_names
    if len(known) == 1:
        raise ValueError("there is only one domain, so there is nothing to search: name at least two")
    for kind, names in (("domains", known), ("eval_domains and metrics", measured)):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{kind}: {twice[0]!r} is named twice")
    weights = space.objective.weights or {}
    of_domains = [(f"eval domain {e.name!r}: own", e.own) for e in space.eval_domains if e.own is not None]
    of_domains += [("constraints.groups:", name) for group in space.constraints.groups for name in group.domains]
    of_domains += [("recipe.stages:", name) for part in space.recipe.stages for name in part.mixture or ()]
    of_measured = [("objective.guardrails:", name) for name in space.objective.guardrails]
    of_measured += [("objective.weights:", name) for name in weights]
    for kind, names, referred in (("a domain", known, of_domains), ("an eval domain or metric", measured, of_measured)):
        for where, name in referred:
            if name not in names:
                raise ValueError(f"{where} {name!r} is not {kind} ({', '.join(names)})")
    for name, weight in weights.items():
        if not weight >= 0:
            raise ValueError(f"objective.weights: the weight of {name!r} is {weight}, it must be >= 0")
    if space.objective.weights is not None and sum(weights.values()) <= 0:
        raise ValueError("objective.weights: at least one weight must be above 0")


def check_ladder(space: "SearchSpace") -> None:
    """Every rung stands once; else ValueError with the rung."""
    scales = [rung.scale for rung in space.ladder]
    twice = [scale for i, scale in enumerate(scales) if scale in scales[:i]]
    if twice:
        n_params, n_tokens = twice[0]
        raise ValueError(
            f"ladder: the rung of n_params {n_params:g} and n_tokens {n_tokens:g} stands twice; keep one: how many "
            "trials a rung gets is the search's choice"
        )


def check_sources(space: "SearchSpace") -> None:
    """All domains have text to train on, or none; then every eval domain has text to measure on; else ValueError."""
    if all(domain.source is None for domain in space.domains):
        return
    for domain in space.domains:
        if domain.source is None:
            raise ValueError(f"domain {domain.name!r} has no source, the others have: give it one")
    for eval_domain in space.eval_domains:
        if eval_domain.own is None and eval_domain.source is None:
            raise ValueError(
                f"eval domain {eval_domain.name!r} needs `own` (the domain it is held out from) or a `source`"
            )


def check_prior(space: "SearchSpace") -> None:
    """All domains have a prior, or none; else ValueError, as where all are 0."""
    given = [domain for domain in space.domains if domain.prior is not None]
    if given and len(given) < len(space.domains):
        missing = next(domain.name for domain in space.domains if domain.prior is None)
        raise ValueError(f"domain {missing!r} has no prior, others have: give all of them one, or none")
    if given and sum(domain.prior or 0.0 for domain in given) <= 0:
        raise ValueError("the priors are all 0: at least one must be above 0")


def check_confirm(space: "SearchSpace") -> None:
    """Confirmation leaves trials to search with, and its baselines can be made; else ValueError."""
    confirm, trials = space.confirm, space.budget.limits().get("trials")
    for name, shares in confirm.mixtures.items() if confirm is not None else ():
        try:
            space.mixture(shares)
        except ValueError as error:
            raise ValueError(f"confirm.mixtures: {name!r}: {error}") from None
    if confirm is not None and trials is not None and trials < confirm.runs + LEAST_SEARCH:
        raise ValueError(
            f"confirm takes {confirm.runs} of the {trials:.0f} trials and leaves fewer than {LEAST_SEARCH} "
            "for the search: raise budget.trials or lower confirm.seeds"
        )
    given = confirm.baselines if confirm is not None else ()
    unknown = [domain.name for domain in space.domains if domain.available_tokens is None and domain.source is None]
    if unknown and not {"prior", "uniform"}.issuperset(given):
        raise ValueError(f"confirm.baselines: all but prior and uniform need available_tokens of {unknown[0]!r}")
