"""The benchmark of fits: cases, the choice of methods, quality, and the report that follows from runs."""

import dataclasses
import importlib.util
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from benchmarks import clustering, data_sets, results
from benchmarks.cases import CASES, FEW, GROUPS, MANY, QUICK_CASES, TABLES, Case
from benchmarks.clustering_report import DOCUMENT, Run, as_json, from_json, front, points_of
from benchmarks.data_sets import FOLDER_VARIABLES, Labels, load
from benchmarks.methods import METHODS, REFERENCE, Method, Variant
from benchmarks.quality import adjusted_rand_index, quality
from benchmarks.results import Content
from benchmarks.runner import Failed, MethodProcess
from kmeans.arrays import Float32

DOCS = Path(__file__).resolve().parents[3] / "docs"
BY_NAME = {case.name: case for case in CASES}
MANY_CASE, TABLE_CASE = BY_NAME["blobs-200"], BY_NAME["pareto"]
SMALL = ("zipf", "lognormal-2", "lognormal-3", "pareto", "far-outliers", "few-rows", "tiny-blobs")


def points_and_centers(rows: int = 500, columns: int = 4, clusters: int = 7) -> tuple[Float32, Float32]:
    generator = np.random.default_rng(0)
    return (
        generator.normal(size=(rows, columns)).astype(np.float32),
        generator.normal(size=(clusters, columns)).astype(np.float32),
    )


# --- quality


def test_quality_euclidean_matches_brute_force() -> None:
    points, centers = points_and_centers()
    distances = ((points[:, None].astype(np.float64) - centers) ** 2).sum(axis=2)
    sizes = np.bincount(distances.argmin(axis=1), minlength=len(centers))
    found = quality(points, centers)
    assert found.loss == pytest.approx(distances.min(axis=1).mean())
    assert (found.smallest, found.largest) == (sizes.min(), sizes.max())
    assert found.adjusted_rand_index is None


def test_quality_cosine_matches_brute_force() -> None:
    points, centers = points_and_centers()
    cosines = points.astype(np.float64) @ centers.T.astype(np.float64)
    cosines /= np.linalg.norm(points, axis=1)[:, None] * np.linalg.norm(centers, axis=1)
    assert quality(points, centers, "cosine").loss == pytest.approx((1 - cosines.max(axis=1)).mean())


def test_quality_cosine_zero_row_has_loss_one() -> None:
    assert quality(np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32), "cosine").loss == 1


def test_quality_cosine_ignores_length_of_centers() -> None:
    points, centers = points_and_centers()
    lengths = np.arange(1, len(centers) + 1, dtype=np.float32)[:, None]
    assert quality(points, centers * lengths, "cosine").loss == pytest.approx(quality(points, centers, "cosine").loss)


def test_quality_many_batches_equal_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    points, centers = points_and_centers()
    known = np.arange(len(points)) % 3
    whole = quality(points, centers, known=known)
    monkeypatch.setattr("benchmarks.quality.BATCH_VALUES", 100)
    batches = quality(points, centers, known=known)
    assert batches.loss == pytest.approx(whole.loss)
    assert dataclasses.replace(batches, loss=whole.loss) == whole


def test_quality_counts_clusters_under_three_rows() -> None:
    points = np.array([0, 0.1, 0.2, 10, 10.1, 20, 20.1, 20.2], np.float32)[:, None]
    found = quality(points, np.array([0, 10, 20, 1000], np.float32)[:, None])
    assert (found.smallest, found.largest, found.under_three) == (0, 3, 2)


def test_quality_heavy_tail_labels_are_exact() -> None:
    """In float32 the squared norms of these centers differ by less than one step."""
    points = np.array([[10_000_000], [10_000_003]], np.float32)
    found = quality(points, points)
    assert (found.loss, found.smallest) == (0, 1)


@pytest.mark.parametrize("clusters", [1, 4, 200])
def test_adjusted_rand_index_equals_scikit_learn(clusters: int) -> None:
    generator = np.random.default_rng(1)
    first, second = generator.integers(0, 5, 200), generator.integers(0, clusters, 200)
    assert adjusted_rand_index(first, second) == pytest.approx(adjusted_rand_score(first, second))
    assert adjusted_rand_index(first, first + 7) == 1


# --- cases


def test_cases_have_unique_names_and_titles() -> None:
    for names in (Counter(case.name for case in CASES), Counter(case.title for case in CASES)):
        assert max(names.values()) == 1


def test_cases_quick_are_known_and_of_each_group() -> None:
    assert {BY_NAME[name].group.name for name in QUICK_CASES} == {group.name for group in GROUPS}


def test_cases_data_is_available() -> None:
    known = {*FOLDER_VARIABLES, *data_sets.GENERATED, *data_sets.TABLES}
    assert {case.data for case in CASES} <= known


def test_cases_include_eight_real_tables() -> None:
    assert len({table.file for table in data_sets.TABLES.values()}) >= 8


@pytest.mark.parametrize("data", SMALL)
def test_load_generated_table_is_deterministic(data: str) -> None:
    points, labels = load(data, {})
    again, _ = load(data, {})
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points, again)
    assert labels is None or len(labels) == len(points)
    for case in CASES:
        if case.data == data:
            assert f"{len(points):,} x {points.shape[1]}" in case.title
            assert case.k < len(points)


def test_load_without_folder_names_the_variable() -> None:
    with pytest.raises(ValueError, match="KMEANS_EMBEDDINGS_DIR"):
        load("embeddings", {})


def test_load_embeddings_are_float32_of_length_one(tmp_path: Path) -> None:
    row = np.array([[255, 40, 0]]) / 0.0038541231770068407 / np.hypot(255, 40)
    np.save(tmp_path / "descriptions_int8.npy", (row / 3).astype(np.int8))
    points, _ = load("embeddings", {"embeddings": tmp_path})
    assert points.dtype == np.float32
    assert np.linalg.norm(points) == pytest.approx(1 / 3, abs=0.01)


def test_mixture_labels_match_the_centers() -> None:
    points, labels = data_sets.mixture(3_000, 8, 5, scale=20, seed=1)
    assert labels is not None
    means = np.array([points[labels == label].mean(axis=0) for label in range(5)])
    assert quality(points, means.astype(np.float32), known=labels).adjusted_rand_index == 1


def test_mixture_rows_of_all_batches_are_shifted(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = data_sets.mixture(50, 2, 3, scale=5, exponent=1, seed=1)
    monkeypatch.setattr(data_sets, "BATCH_ROWS", 7)
    np.testing.assert_array_equal(data_sets.mixture(50, 2, 3, scale=5, exponent=1, seed=1)[0], whole)


def package_with(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "shop").mkdir()
    (folder / "shop" / "__init__.py").write_text("raise AssertionError('imported')")
    (folder / "shop" / "sales.csv").write_text(text)
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()


def test_read_table_skips_rows_with_missing_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package_with(tmp_path, "year,a,b\n1,2,3\n1,,4\n2,5,6\n1,7,8\n", monkeypatch)
    table = data_sets.Table("sales", "", "shop", "sales.csv", ("b", "a"), 2, 1, {"year": "1"})
    assert data_sets.read_table(table).tolist() == [[3, 2], [8, 7]]
    scaled = data_sets.read_table(dataclasses.replace(table, is_scaled=True))
    assert scaled.std(axis=0) == pytest.approx([1, 1])


def test_read_table_with_other_rows_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package_with(tmp_path, "a\n1\n2\n", monkeypatch)
    with pytest.raises(ValueError, match="expected 3 whole rows, found 2"):
        data_sets.read_table(data_sets.Table("sales", "", "shop", "sales.csv", ("a",), 3, 1))


def test_read_table_without_package_names_it() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_package is not installed"):
        data_sets.read_table(data_sets.Table("", "", "no_such_package", "x.csv", ("a",), 1, 1))


# --- methods


def variants(method: str, case: Case, rows: int = 10**9) -> dict[str, Variant]:
    found = next(candidate for candidate in METHODS if candidate.name == method)
    return {variant.name: variant for variant in found.variants_for(case, rows)}


def test_variants_tables_run_no_indexing_library() -> None:
    run = {method.name for method in METHODS if method.variants_for(TABLE_CASE, 20_000)}
    assert run == {"kmeans", "scikit-learn MiniBatchKMeans", "scikit-learn KMeans", "breathing k-means"}


def test_variants_tables_include_the_reference_once() -> None:
    method, variant = REFERENCE
    found = variants(method, TABLE_CASE)[variant]
    assert (found.seeds, found.options["n_init"]) == (1, 30)


def test_variants_many_run_fast_setting_one_pass_and_default() -> None:
    assert list(variants("kmeans", MANY_CASE)) == [
        "init_method=hierarchical, refine_max_iter=0",
        "refine_max_iter=1",
        "default",
    ]
    assert list(variants("SuperKMeans, all rows", MANY_CASE)) == ["iters=10", "iters=25"]


def test_variants_few_are_those_of_the_first_report() -> None:
    content = json.loads((DOCS / "benchmark.json").read_text())
    runs = {(run["method"], run["variant"]) for run in content["runs"] if run["case"] == "mnist-10"}
    mnist = BY_NAME["mnist-10"]
    assert runs <= {(method.name, name) for method in METHODS for name in variants(method.name, mnist, 60_000)}


def test_variants_sample_of_all_rows_is_left_out() -> None:
    assert len(variants("kmeans, on a sample", MANY_CASE, 128 * MANY_CASE.k + 1)) == 2
    assert len(variants("kmeans, on a sample", MANY_CASE, 128 * MANY_CASE.k)) == 1


@pytest.mark.parametrize(
    ("method", "options"),
    [("kmeans", {"distance_metric": "cosine"}), ("faiss", {"spherical": True}), ("SuperKMeans", {"angular": True})],
)
def test_variants_cosine_case_adds_the_option(method: str, options: dict[str, object]) -> None:
    cosine, euclidean = BY_NAME["texts-1000-cosine"], BY_NAME["texts-1000"]
    for name, variant in variants(method, cosine).items():
        assert variant.options == {**variants(method, euclidean)[name].options, **options}


def test_variants_method_without_cosine_is_left_out() -> None:
    method = Method("other", METHODS[0].run, (Variant("default", groups=(MANY,)),))
    assert not method.variants_for(BY_NAME["texts-1000-cosine"], 10**6)


def test_process_with_unknown_setting_reports_failure(tmp_path: Path) -> None:
    np.save(tmp_path / "points.npy", points_and_centers()[0])
    unknown = Variant("default", {"no_such_setting": 1})
    process = MethodProcess(METHODS[0], tmp_path / "points.npy", 3, 1, first=unknown)
    outcome = process.run(unknown, 0, limit=60)
    process.end()
    assert isinstance(outcome, Failed)
    assert "no_such_setting" in outcome.reason


# --- runs and report


def run(case: Case, method: str, variant: str, loss: float, seconds: float = 1.0, *, seed: int = 0) -> Run:
    return Run(case.name, method, variant, seed, seconds, seconds, 0.0, loss, smallest=1, largest=50, under_three=2)


def table_runs() -> list[Run]:
    return [
        run(TABLE_CASE, *REFERENCE, 10, 3),
        *(run(TABLE_CASE, "kmeans", "default", loss, seed=seed) for seed, loss in enumerate((30, 11, 12))),
        run(TABLE_CASE, "breathing k-means", "default", 9, 2),
    ]


def many_runs() -> list[Run]:
    ours = run(MANY_CASE, "kmeans", "default", 1.1)
    return [
        dataclasses.replace(ours, adjusted_rand_index=0.5),
        run(MANY_CASE, "faiss", "default (niter=25)", 1, 2),
        run(MANY_CASE, "SuperKMeans", "default", 1.2, 0.5),
    ]


def stored(runs: list[Run]) -> Content:
    return {
        "machine": {"machine": "this", "date": "2026-01-02", "versions": "kmeans 1 (abc), Python 3"},
        "efforts": {"many": {"seeds": 3, "slow_seeds": 1, "limit": 240}},
        "protocol": {"slow_seconds": 30, "repeats": 2, "repeated_seconds": 5},
        "runs": [as_json(run) for run in runs],
    }


def markdown(runs: list[Run]) -> str:
    return DOCUMENT.markdown(stored(runs))


def line_of(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def test_run_json_round_trip_is_the_same() -> None:
    for original in (*many_runs(), Run("mnist-10", "kmeans", "default", 0, failure="cut after 1 s")):
        assert from_json(json.loads(json.dumps(as_json(original)))) == original


def test_run_json_in_docs_loads() -> None:
    content = json.loads((DOCS / "benchmark.json").read_text())
    runs = [from_json(record) for record in content["runs"]]
    assert all(run.loss is not None or run.failure for run in runs)
    assert "## MNIST, 60,000 x 784, k = 10" in markdown(runs)


def test_report_run_without_cpu_seconds_leaves_the_cell_empty() -> None:
    """The first results have no CPU time, and those of other cases no clusters' sizes."""
    text = markdown([Run("mnist-10", "kmeans", "default", 0, seconds=2.0, loss=1.5)])
    assert line_of(text, "| kmeans | **default**").startswith("| kmeans | **default** | 1 | 2 (2-2) |  |  | 1.5000")


def test_report_first_format_is_rendered() -> None:
    """The first files have notes as text instead of fields."""
    runs = [as_json(run) for run in many_runs()]
    notes = ["5 seeds (0 to 4)", "run later than the others, on 2026-01-02: kmeans"]
    text = DOCUMENT.markdown({"machine": {"machine": "this"}, "notes": notes, "runs": runs})
    assert "- run later than the others, on 2026-01-02: kmeans\n" in text
    assert "a run of at most 5 s that was disturbed is repeated up to 2 times" in text


def test_report_has_cpu_seconds_next_to_wall_seconds() -> None:
    runs = [dataclasses.replace(run, cpu_seconds=7.5) for run in (*many_runs(), *table_runs())]
    text = markdown(runs)
    assert line_of(text, f"| {MANY_CASE.name} ").startswith(f"| {MANY_CASE.name} | 1 | 7.5 |")
    assert line_of(text, "| kmeans | **default**").startswith("| kmeans | **default** | 1 | 1 (1-1) | 7.5 |")
    cpu = text[text.index("## Tables: CPU seconds") :]
    assert line_of(cpu, f"| {TABLE_CASE.title}").count(" 7.5 |") == 3


def test_run_json_knows_the_first_name_of_loss() -> None:
    record = {"case": "c", "method": "m", "variant": "v", "seed": 0, "mean_squared_distance": 2.5, "failure": None}
    assert from_json(record) == Run("c", "m", "v", 0, loss=2.5)


def test_points_tables_take_median_others_mean() -> None:
    (table,) = (point for point in points_of(TABLE_CASE, table_runs()) if point.ours)
    assert table.loss == 12
    case = BY_NAME["mnist-10"]
    runs = [run(case, "kmeans", "default", loss, seed=seed) for seed, loss in enumerate((30, 11, 13))]
    assert points_of(case, runs)[0].loss == 18


def test_points_failed_run_has_no_seconds() -> None:
    runs = [*many_runs(), Run(MANY_CASE.name, "kmeans", "default", 1, failure="cut")]
    (ours,) = (point for point in points_of(MANY_CASE, runs) if point.ours)
    assert (ours.seconds, ours.failure, ours.sizes) == ((), "cut", None)


def test_report_table_has_ratios_to_the_reference() -> None:
    text = markdown(table_runs())
    expected = f"| {TABLE_CASE.title} | 10, 3 | 1.200 / 3.000, 1 | 0.900 / 0.900, 2 |"
    assert expected in text
    assert "| **largest of all tables** | | 1.200 / 3.000 | 0.900 / 0.900 |" in text
    assert "benchmark.png" not in text


def test_report_table_has_sizes_of_clusters() -> None:
    text = markdown(table_runs())
    assert line_of(text[text.index("## Tables: sizes") :], f"| {TABLE_CASE.title}").count("1-50, 2") == 3


def test_report_table_without_reference_has_times_only() -> None:
    text = markdown(table_runs()[1:])
    assert f"| {TABLE_CASE.title} | not run | 1 | 2 |" in text


def test_report_many_has_sizes_and_known_labels() -> None:
    text = markdown(many_runs())
    assert "| smallest | largest | under 3 rows | adjusted Rand index |" in text
    assert line_of(text, "| kmeans | **default**").endswith("| 1 | 50 | 2 | 0.5000 |")
    assert line_of(text, "| faiss | default").endswith("| 1 | 50 | 2 | |")


def test_report_few_keeps_its_columns() -> None:
    assert "smallest" not in markdown([run(BY_NAME["mnist-10"], "kmeans", "default", 1)])


def test_report_cosine_case_names_its_loss() -> None:
    text = markdown([run(BY_NAME["texts-1000-cosine"], "kmeans", "default", 0.3)])
    assert "1 - cosine, mean (min-max)" in text


def test_report_columns_are_of_equal_number() -> None:
    failed = Run(MANY_CASE.name, "scikit-learn MiniBatchKMeans", "default", 0, failure="cut")
    rows = [line for line in markdown([*many_runs(), *table_runs(), failed]).splitlines() if line.startswith("|")]
    headings = [i for i, line in enumerate(rows) if line.startswith("| ---")]
    for i, j in zip(headings, [*headings[1:], len(rows) + 1], strict=True):
        assert {row.count("|") for row in rows[i - 1 : j - 1]} == {rows[i].count("|")}


def test_summary_has_best_peer_ratio_and_front() -> None:
    line = line_of(markdown(many_runs()), f"| {MANY_CASE.name} ")
    assert "faiss, default (niter=25): 1.0000 in 2 | 1.1000 | yes |" in line


def test_summary_faster_equal_peer_is_on_the_front() -> None:
    equal = run(MANY_CASE, "faiss", "default (niter=25)", 1.1 * (1 + 1e-9), 0.9)
    line = line_of(markdown([many_runs()[0], equal]), f"| {MANY_CASE.name} ")
    assert "no: faiss, default (niter=25)" in line


def test_summary_zero_losses_are_equal() -> None:
    runs = [run(TABLE_CASE, "kmeans", "default", 0), run(TABLE_CASE, *REFERENCE, 0)]
    assert "| 1.0000 |" in line_of(markdown(runs), f"| {TABLE_CASE.name} ")


# --- the command


def options(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[Case]:
    for variable in FOLDER_VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("sys.argv", ["clustering", *arguments])
    return clustering._cases(clustering._options())


def test_groups_choose_the_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {case.group for case in options(monkeypatch, "--groups", "few", "many")} == {FEW, MANY}
    assert {case.group for case in options(monkeypatch, "--groups", "tables")} == {TABLES}


def test_groups_unknown_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        options(monkeypatch, "--groups", "chairs")


def test_cases_without_folder_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not {case.data for case in options(monkeypatch)} & set(FOLDER_VARIABLES)
    assert {case.data for case in options(monkeypatch, "--embeddings", "x")} & set(FOLDER_VARIABLES) == {"embeddings"}


def test_quick_cuts_rows_and_clusters_but_not_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    labels: Labels = np.arange(50_000)
    monkeypatch.setattr(clustering, "load", lambda data, folders: (labels[:, None].astype(np.float32), labels))
    monkeypatch.setattr("sys.argv", ["clustering", "--quick"])
    quick = clustering._options()
    points, known = clustering._load("blobs-200", quick)
    assert known is not None
    assert points[:3, 0].tolist() == known[:3].tolist() == [0, 5, 10]
    assert len(points) == len(known) == clustering.QUICK_ROWS
    assert len(clustering._load("pareto", quick)[0]) == 50_000
    assert clustering._fitting(BY_NAME["texts-4096"], quick).k == 500
    assert clustering._fitting(BY_NAME["few-rows-95"], quick).k == 95


def test_update_keeps_runs_that_are_not_repeated() -> None:
    runs = [*many_runs(), *table_runs()]
    before = json.loads(results.as_json(stored(runs)))
    ours = [method for method in METHODS if method.ours]
    kept = clustering.kept_runs(before, [MANY_CASE], ours)
    assert [run for run in runs if run not in kept] == [runs[0]]


def test_update_records_what_was_run_later() -> None:
    before, ours = stored(many_runs()), [method for method in METHODS if method.ours]
    now = {"machine": "that", "date": "2026-03-04", "versions": "kmeans 2 (def), Python 3", "threads": "2"}
    updated = clustering._updated(before, {**before, "machine": now, "efforts": {}}, [MANY_CASE], ours)
    assert updated["machine"] == before["machine"]
    line = line_of(DOCUMENT.markdown(updated), "- run later")
    assert "on another machine (that), on 2026-03-04 by kmeans 2 (def): kmeans; kmeans, on a sample" in line
    assert line.endswith(f"on {MANY_CASE.name}")


def test_sorted_drops_runs_of_unknown_cases() -> None:
    gone = dataclasses.replace(many_runs()[0], case="gone")
    assert clustering.sorted_runs([gone, *reversed(many_runs())])[0].method == "kmeans"
    assert front([]) == []
