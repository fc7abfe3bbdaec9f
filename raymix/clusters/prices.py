"""The price table: a small YAML file with a date and sources, that a person edits; read once, checked once.

It is also the list of machines that the cluster files name: which instance carries which GPU.
"""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from raymix.space_parts import Frozen
from raymix.yaml12 import SpaceError, explain, read_yaml

PACKAGED = Path(__file__).with_name("prices.yaml")


class GpuType(Frozen):
    """A GPU: dense 16-bit TFLOP/s as the vendor states it, and the name Ray knows it by."""

    tflops: float = Field(gt=0)
    ray: str


class Assumed(Frozen):
    """What the plan assumes where nothing was measured."""

    utilisation: float = Field(gt=0, le=1)
    cpu_gflops: float = Field(gt=0)


class Machine(Frozen):
    """One kind of machine: its name at the cloud, what is in it, US dollars per hour on demand."""

    instance: str
    cpus: int = Field(ge=1)
    gpus: int = Field(default=0, ge=0)
    usd: float = Field(ge=0)


class Cloud(Frozen):
    """One cloud's machines; `spot` is the fraction of the list price a spot machine costs."""

    region: str
    source: str
    spot: float = Field(gt=0, le=1)
    preemptions_per_hour: float = Field(ge=0)
    head: Machine
    cpu: Machine
    gpus: Mapping[str, Machine]


class Prices(Frozen):
    """The whole table."""

    date: str
    currency: str
    gpus: Mapping[str, GpuType]
    assumed: Assumed
    clouds: Mapping[str, Cloud]

    @field_validator("date", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return value.isoformat() if isinstance(value, datetime.date) else value

    def machine(self, cloud: str, gpu: str | None) -> Machine:
        """The machine of a cloud with this GPU, or its CPU machine.

        Raises:
            SpaceError: the table has no such cloud or GPU; the message says which it has.
        """
        if cloud not in self.clouds:
            raise SpaceError(f"the price table has no cloud {cloud!r}; it has {', '.join(self.clouds)}")
        table = self.clouds[cloud]
        if gpu is None:
            return table.cpu
        if gpu not in table.gpus:
            raise SpaceError(f"the price table has no {gpu!r} at {cloud}; it has {', '.join(table.gpus)}")
        return table.gpus[gpu]


def read_prices(path: Path | None = None) -> Prices:
    """The price table at `path`, or the one that comes with raymix.

    Raises:
        SpaceError: it is missing or not a price table; the message names the key.
    """
    file = path or PACKAGED
    try:
        return Prices.model_validate(read_yaml(file))
    except ValidationError as error:
        raise SpaceError(f"{file}: {explain(error, Prices)}") from None
