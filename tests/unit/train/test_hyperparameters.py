"""The table of hyperparameters: spellings, ranges, error texts."""

from typing import Any

import pytest

from kmeans.errors import SettingError
from kmeans.ranges import Choice, Integer, Real
from kmeans.settings import Settings
from train.hyperparameters import TABLE, Boolean, Kind, Subset, markdown_table, parse

METHOD = Choice(("random", "kmeans++"), {"k-means++": "kmeans++"})
SCORES = Subset(("msd", "ssd"))


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Integer(1), "8", 8),
        (Integer(1), "+8", 8),
        (Integer(1), "8.0", 8),
        (Integer(1), "8e0", 8),
        (Integer(1), "1e3", 1000),
        (Integer(1), "007", 7),
        (Integer(1), "1", 1),
        (Integer(0), "0", 0),
        (Integer(0), "0.0", 0),
        (Integer(0), "9007199254740993", 9007199254740993),
        (Integer(1, auto=True), "auto", None),
        (Integer(1, auto=True), "AUTO", None),
        (Integer(1, auto=True), "3", 3),
        (Real(0, 1), "0.0001", 0.0001),
        (Real(0, 1), "1e-4", 0.0001),
        (Real(0, 1), "0", 0.0),
        (Real(0, 1), "1.0", 1.0),
        (METHOD, "random", "random"),
        (METHOD, "Random", "random"),
        (METHOD, "kmeans++", "kmeans++"),
        (METHOD, "k-means++", "kmeans++"),
        (METHOD, "K-Means++", "kmeans++"),
        (SCORES, '["msd"]', ("msd",)),
        (SCORES, '["msd", "ssd"]', ("msd", "ssd")),
        (SCORES, '["ssd","msd"]', ("ssd", "msd")),
        (SCORES, "['msd', 'ssd']", ("msd", "ssd")),
        (SCORES, "[ssd, msd]", ("ssd", "msd")),
        (SCORES, "msd,ssd", ("msd", "ssd")),
        (SCORES, "MSD", ("msd",)),
        (SCORES, '["msd", "msd"]', ("msd",)),
        (Boolean(), "true", True),
        (Boolean(), "True", True),
        (Boolean(), "1", True),
        (Boolean(), "FALSE", False),
        (Boolean(), "0", False),
    ],
)
def test_each_kind_reads_its_spellings(kind: Kind, text: str, value: object) -> None:
    found = kind.parse(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Integer(1), "0"),
        (Integer(1), "-1"),
        (Integer(0), "-1"),
        (Integer(1), "2.5"),
        (Integer(1), "abc"),
        (Integer(1), ""),
        (Integer(1), "auto"),
        (Integer(1), "inf"),
        (Integer(1), "nan"),
        (Integer(1), "1e999"),
        (Integer(1), "0x10"),
        (Integer(1), "1,000"),
        (Integer(1), "true"),
        (Integer(1), "[8]"),
        (Real(0, 1), "1.01"),
        (Real(0, 1), "-0.1"),
        (Real(0, 1), "nan"),
        (Real(0, 1), "inf"),
        (Real(0, 1), "small"),
        (METHOD, "best"),
        (METHOD, ""),
        (SCORES, '["mse"]'),
        (SCORES, '["msd", "mse"]'),
        (SCORES, "[]"),
        (SCORES, ""),
        (SCORES, '{"msd": 1}'),
        (Boolean(), "yes"),
        (Boolean(), "2"),
    ],
)
def test_each_kind_refuses_values_out_of_its_range(kind: Kind, text: str) -> None:
    with pytest.raises((ValueError, OverflowError)):
        kind.parse(text)


@pytest.mark.parametrize(
    ("kind", "description"),
    [
        (Integer(1), "an integer of at least 1"),
        (Integer(0, auto=True), "an integer of at least 0 or auto"),
        (Real(0, 1), "a number from 0 to 1"),
        (METHOD, "random or kmeans++"),
        (SCORES, "a JSON list of msd and ssd"),
        (Boolean(), "true or false"),
    ],
)
def test_each_kind_describes_itself(kind: Kind, description: str) -> None:
    assert kind.describe() == description


def test_k_alone_gives_the_defaults_of_the_built_in_image() -> None:
    found = parse({"k": "8"})
    assert found.settings == Settings(k=8)
    assert found.settings == Settings(
        k=8,
        epochs=1,
        init_method="random",
        extra_center_factor=None,
        half_life_time_size=0,
        local_lloyd_init_method="kmeans++",
        local_lloyd_max_iter=300,
        local_lloyd_num_trials=None,
        local_lloyd_tol=0.0001,
        refine_max_iter=None,
        seed=0,
    )
    assert (found.feature_dim, found.mini_batch_size, found.eval_metrics) == (None, 5000, ("msd",))


def test_the_values_for_the_log_name_all_rows_of_the_table() -> None:
    values = parse({"k": "8", "epochs": "2"}).values
    assert list(values) == [row.name for row in TABLE]
    assert values["epochs"] == 2
    assert values["feature_dim"] == values["local_lloyd_num_trials"] == "auto"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epochs", "3", 3),
        ("init_method", "kmeans++", "kmeans++"),
        ("extra_center_factor", "5", 5),
        ("half_life_time_size", "100", 100),
        ("local_lloyd_init_method", "random", "random"),
        ("local_lloyd_max_iter", "30", 30),
        ("local_lloyd_num_trials", "2", 2),
        ("local_lloyd_tol", "0.5", 0.5),
        ("refine_max_iter", "0", 0),
        ("seed", "42", 42),
    ],
)
def test_each_value_reaches_its_setting(name: str, text: str, value: object) -> None:
    assert getattr(parse({"k": "8", name: text}).settings, name) == value


@pytest.mark.parametrize("text", ['"8"', ' "8" ', '" 8 "', " 8 ", "8\n"])
def test_quotes_and_space_around_a_value_are_passed_over(text: str) -> None:
    assert parse({"k": text}).settings.k == 8


@pytest.mark.parametrize("text", ["", '""', "  "])
def test_an_empty_value_is_the_default(text: str) -> None:
    assert parse({"k": "8", "epochs": text}).settings.epochs == 1


@pytest.mark.parametrize(
    "name",
    ["_tuning_objective_metric", "_kvstore", "sagemaker_program", "sagemaker_region", "default_user_module_name"],
)
def test_names_for_other_readers_are_passed_over(name: str) -> None:
    assert parse({"k": "8", name: "whatever"}) == parse({"k": "8"})


@pytest.mark.parametrize("texts", [{}, {"k": ""}, {"k": '""'}, {"_k": "8"}])
def test_missing_k_has_the_message_of_the_built_in_image(texts: dict[str, str]) -> None:
    with pytest.raises(SettingError) as caught:
        parse(texts)
    assert str(caught.value) == "No value(s) were specified for 'k' which are required hyperparameter(s)."


@pytest.mark.parametrize("row", [row for row in TABLE if row.name != "k"], ids=lambda row: row.name)
def test_wrong_value_is_reported_with_name_expected_and_found(row: Any) -> None:
    with pytest.raises(SettingError) as caught:
        parse({"k": "8", row.name: "-?"})
    assert str(caught.value) == f"Hyperparameter {row.name}: expected {row.kind.describe()}, found '-?'."


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("epoch", "epochs"),
        ("minibatch_size", "mini_batch_size"),
        ("local_lloyd_max_iterations", "local_lloyd_max_iter"),
        ("feature_dims", "feature_dim"),
        ("init_methods", "init_method"),
    ],
)
def test_a_name_that_is_nearly_right_is_recognised(name: str, meant: str) -> None:
    with pytest.raises(SettingError, match=f"'{name}' is not a hyperparameter: did you mean '{meant}'"):
        parse({"k": "8", name: "1"})


def test_unknown_name_is_reported_with_all_known_names() -> None:
    with pytest.raises(SettingError) as caught:
        parse({"k": "8", "zzz": "1"})
    assert all(row.name in str(caught.value) for row in TABLE)


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(SettingError) as caught:
        parse({"epochs": "0", "seed": "x", "sed": "1"})
    assert all(part in str(caught.value) for part in ("'k'", "epochs:", "seed:", "'sed'"))


def test_a_very_long_value_is_shortened_in_its_error() -> None:
    with pytest.raises(SettingError) as caught:
        parse({"k": "x" * 2500})
    assert len(str(caught.value)) < 150


def test_the_markdown_table_has_a_row_for_each() -> None:
    lines = markdown_table().splitlines()
    assert lines[1].count("---") == lines[0].count("|") - 1
    assert [line.split("`")[1] for line in lines[2:]] == [row.name for row in TABLE]
    assert "required" in lines[2]
    assert all(line.count("|") == lines[0].count("|") for line in lines)
