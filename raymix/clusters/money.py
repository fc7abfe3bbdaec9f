"""What a plan costs on rented machines: FLOPs to GPU-hours to money, spot machines that are taken away included.

Hours come from FLOPs and the utilisation that the price table assumes, not from a measurement. A preempted trial goes
on from its checkpoint: it loses half the time between two, and the start of another machine.
"""

from dataclasses import dataclass

from raymix.clusters.prices import Prices
from raymix.plan import Plan

RESTART_SECONDS = 180.0  # a new machine, its image, Ray, the shards


@dataclass(frozen=True)
class RungCost:
    """One rung: hours on one GPU (or one CPU machine), and what they cost."""

    n_params: int
    trials: int
    hours: float
    on_demand: float
    spot: float
    preemptions: float
    """Expected, on spot machines."""


@dataclass(frozen=True)
class Money:
    """All of it, in the table's currency."""

    cloud: str
    region: str
    gpu: str | None
    instance: str
    workers: int
    date: str
    source: str
    currency: str
    basis: str
    rungs: list[RungCost]
    hours: float
    wall_hours: float
    head: float
    on_demand: float
    spot: float
    preemptions: float


def price(plan: Plan, prices: Prices, cloud: str, gpu: str | None, workers: int, checkpoint_seconds: float) -> Money:
    """The money of a plan on `workers` machines of a cloud.

    Raises:
        SpaceError: the price table has no such cloud or GPU.
    """
    machine = prices.machine(cloud, gpu)
    table = prices.clouds[cloud]
    slots = max(machine.gpus, 1)
    if gpu is None:
        flops = machine.cpus * prices.assumed.cpu_gflops * 1e9
        basis = f"{prices.assumed.cpu_gflops:g} GFLOP/s a core, assumed"
    else:
        flops = prices.gpus[gpu].tflops * 1e12 * prices.assumed.utilisation
        basis = f"{prices.assumed.utilisation:.0%} of {prices.gpus[gpu].tflops:g} TFLOP/s, not yet measured on a GPU"
    lost = (checkpoint_seconds / 2 + RESTART_SECONDS) / 3600
    rungs = []
    for rung in plan.rungs:
        hours = rung.trials * rung.flops / flops / 3600
        preemptions = hours / slots * table.preemptions_per_hour
        spot_hours = hours + preemptions * lost * slots
        dollars = machine.usd / slots
        costs = hours * dollars, spot_hours * dollars * table.spot
        rungs.append(RungCost(rung.n_params, rung.trials, hours, *costs, preemptions))
    hours = sum(rung.hours for rung in rungs)
    wall = hours / (workers * slots)
    head = wall * table.head.usd
    return Money(
        cloud, table.region, gpu, machine.instance, workers, prices.date, table.source, prices.currency, basis, rungs,
        hours=hours,
        wall_hours=wall,
        head=head,
        on_demand=head + sum(rung.on_demand for rung in rungs),
        spot=head + sum(rung.spot for rung in rungs),
        preemptions=sum(rung.preemptions for rung in rungs),
    )  # fmt: skip
