"""The arithmetic of the cost model; benchmarks.scaling compares its predictions with real jobs."""

from dataclasses import replace

import pytest

from benchmarks.cost_model import (
    Effort,
    Fit,
    Measured,
    Network,
    Rates,
    Shape,
    efficiency,
    effort_of,
    message,
    network_of,
    predict,
    rates_of,
    rows_for,
)

RATES = Rates(serial=0.2, streamed=0.4, compare_all=8e-6, compare_nearby=3e-6, count=4e-6, step=3e-3)
EFFORT = Effort(all_once=1.2, all_each=0.01, nearby_once=3.0, nearby_each=0.4)
NETWORK = Network(latency=0.3e-3, per_byte=1.5e-9)
FREE = Network(latency=0.0, per_byte=0.0)
SHAPE = Shape(columns=784, clusters=100)
FIT = EFFORT.fit(SHAPE, rows=1e6, hosts=2, moves=10)


def alone(rows: float, moves: float) -> Measured:
    """Return a fit on one host whose phases take exactly the time of the rates."""
    fit = EFFORT.fit(SHAPE, rows, 1, moves)
    refine = fit.with_all * RATES.compare_all + fit.with_nearby * RATES.compare_nearby + fit.steps * RATES.step
    phases = {"seed": 0.05, "stream": RATES.streamed, "shrink": RATES.serial - 0.05, "refine": refine}
    return Measured(fit, {**phases, "count": rows * RATES.count, "read": 5.0})


def test_rates_of_generated_fits_are_recovered() -> None:
    found = rates_of([alone(rows, moves) for rows in (16_000, 125_000) for moves in (2, 12)])
    for name in ("serial", "streamed", "compare_all", "compare_nearby", "count", "step"):
        assert getattr(found, name) == pytest.approx(getattr(RATES, name)), name


def test_rates_of_small_fits_predict_a_large_fit() -> None:
    found = rates_of([alone(rows, moves) for rows in (16_000, 125_000) for moves in (2, 12)])
    large = alone(1e6, 30)
    assert predict(large.fit, found, NETWORK) == pytest.approx(large.seconds)


def test_rates_of_noisy_fits_are_not_negative() -> None:
    """Comparisons that cost nothing, and noise that makes more of them the cheaper."""
    few, many = alone(125_000, 2), alone(125_000, 12)
    found = rates_of([few, replace(many, phases=few.phases)])
    assert min(found.compare_all, found.compare_nearby, found.step) == 0


def test_rates_without_nearby_centers_have_none_for_them() -> None:
    points = [alone(rows, moves) for rows in (16_000, 125_000) for moves in (2, 12)]
    found = rates_of([replace(point, fit=replace(point.fit, with_nearby=0)) for point in points])
    assert found.compare_all > 0
    assert found.compare_nearby == 0


def test_effort_of_generated_fits_is_recovered() -> None:
    found = effort_of([alone(rows, moves) for rows in (16_000, 125_000) for moves in (2, 12)])
    for name in ("all_once", "all_each", "nearby_once", "nearby_each"):
        assert getattr(found, name) == pytest.approx(getattr(EFFORT, name)), name


def test_network_of_generated_exchanges_is_recovered() -> None:
    found = network_of({numbers: NETWORK.exchange(2, numbers) for numbers in (4, 7_852, 785_002)})
    assert (found.latency, found.per_byte) == pytest.approx((NETWORK.latency, NETWORK.per_byte))


def test_message_counts_the_values_of_a_pass() -> None:
    """Sums, weights, inertia and whether to stop: see kmeans.sums."""
    assert message(100, 784) == 100 * 784 + 100 + 2


@pytest.mark.parametrize(("hosts", "latencies", "shares"), [(1, 0, 0), (2, 1, 1), (4, 2, 1.5), (128, 7, 2 * 127 / 128)])
def test_exchange_is_latency_per_step_plus_bytes(hosts: int, latencies: float, shares: float) -> None:
    assert NETWORK.exchange(hosts, 1000) == pytest.approx(0.3e-3 * latencies + 1.5e-9 * 8000 * shares)


def test_predict_more_hosts_divide_only_work_on_rows() -> None:
    two, four = (predict(replace(FIT, hosts=hosts), RATES, FREE) for hosts in (2, 4))
    work = (
        FIT.with_all * RATES.compare_all + FIT.with_nearby * RATES.compare_nearby + FIT.rows * RATES.count
    ) + RATES.streamed
    assert two - four == pytest.approx(work / 4)


def test_predict_one_host_has_no_communication() -> None:
    one = replace(FIT, hosts=1)
    assert predict(one, RATES, NETWORK) == predict(one, RATES, FREE)
    assert predict(FIT, RATES, NETWORK) > predict(FIT, RATES, FREE)


def test_efficiency_compares_one_host_with_all() -> None:
    one, sixteen = (predict(replace(FIT, hosts=hosts), RATES, NETWORK) for hosts in (1, 16))
    assert efficiency(replace(FIT, hosts=16), RATES, NETWORK) == pytest.approx(one / (16 * sixteen))
    assert efficiency(replace(FIT, hosts=1), RATES, NETWORK) == 1


@pytest.mark.parametrize("hosts", [2, 16, 128])
def test_rows_for_reaches_the_wanted_efficiency(hosts: int) -> None:
    def fit_of(rows: float) -> Fit:
        return EFFORT.fit(SHAPE, rows, hosts, moves=10)

    rows = rows_for(0.9, fit_of, RATES, NETWORK)
    below, above = (efficiency(fit_of(rows * factor), RATES, NETWORK) for factor in (0.9, 1.1))
    assert below < 0.9 < above
