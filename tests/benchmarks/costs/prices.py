"""The price list: configs/deploy/prices.yaml, read and checked. Knows no usage."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fashion.home import REPOSITORY
from tests.benchmarks.costs.model import Price

FILE = REPOSITORY / "configs" / "deploy" / "prices.yaml"


class BadPrices(ValueError):
    """A price list that cannot be used. The message names the price, the value and the remedy."""


@dataclass(frozen=True)
class PriceList:
    """Prices of one region."""

    currency: str
    region: str
    prices: Mapping[str, Price]
    """By name."""


def read(file: Path = FILE) -> PriceList:
    """Read a price list.

    Raises:
        BadPrices: the file is missing or is no price list, or a price has no date or no source.
    """
    try:
        content = yaml.safe_load(file.read_text())
        entries = {name: _price(name, entry) for name, entry in content["prices"].items()}
        return PriceList(str(content["currency"]), str(content["region"]), entries)
    except BadPrices:
        raise
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise BadPrices(f"{file} is no price list ({error!r}): see configs/deploy/prices.yaml for its form") from error


def _price(name: str, entry: Mapping[str, Any]) -> Price:
    try:
        values: dict[str, Any] = {key: str(value) if key == "seen" else value for key, value in entry.items()}
        price = Price(**values)
    except (TypeError, ValueError) as error:
        raise BadPrices(f"price {name}: {error}") from error
    if not price.source.startswith("https://"):
        raise BadPrices(f"price {name}: source must be the https:// address of a price list, got {price.source!r}")
    if not price.seen.strip():
        raise BadPrices(f"price {name}: seen must be the date of the copy that was read")
    return price
