"""Multi-model endpoints: models are loaded, asked, listed and unloaded while the server runs."""

import itertools
import json
import os
import socket
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kmeans import artifact
from kmeans.model import KMeansModel

from .opt_ml import OptMl
from .samples import csv, digits, json_lines, nearest, npy, predictions, read_centers
from .server import HOST, Answer, Server, serving
from .waiting import wait_until

POINTS = digits()[:20]
MEGABYTE = 1 << 20


class Endpoint:
    """A multi-model server, and the folder that SageMaker unpacks models into."""

    def __init__(self, server: Server, base: Path) -> None:
        self.server = server
        self.models = base / "models"

    def put(self, folder_name: str, centers: object) -> str:
        """Write a model; return its url."""
        folder = self.models / folder_name
        folder.mkdir(parents=True)
        artifact.save(KMeansModel(np.asarray(centers, dtype=np.float32)), folder)
        return str(folder)

    def load(self, name: object, url: object, **more: object) -> Answer:
        return self.server.ask("POST", "/models", json.dumps({"model_name": name, "url": url, **more}).encode())

    def page(self, **parameters: object) -> Any:
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        answer = self.server.ask("GET", f"/models{query}")
        assert answer.status == 200, answer.body
        assert answer.content_type == "application/json"
        return json.loads(answer.body)

    def describe(self, name: str) -> Answer:
        return self.server.ask("GET", path(name))

    def unload(self, name: str) -> Answer:
        return self.server.ask("DELETE", path(name))

    def invoke(self, name: str, body: bytes, content_type: str = "text/csv", **headers: str) -> Answer:
        given = {"Content-Type": content_type, **{key.replace("_", "-"): text for key, text in headers.items()}}
        return self.server.ask("POST", f"{path(name)}/invoke", body, given)


def path(name: str) -> str:
    return f"/models/{urllib.parse.quote(name, safe='')}"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A server for the whole module; each test unloads the models that it loads."""
    base = tmp_path_factory.mktemp("shared") / "ml"
    with serving(base, base.parent / "output", SAGEMAKER_MULTI_MODEL="true") as server:
        yield Endpoint(server, base)


@pytest.fixture
def endpoint(shared: Endpoint) -> Iterator[Endpoint]:
    yield shared
    for model in shared.page()["models"]:
        assert shared.unload(model["modelName"]).status == 200


@pytest.fixture(scope="module")
def place() -> Callable[[], str]:
    """Names of folders, each given once."""
    numbers = itertools.count()
    return lambda: f"folder-{next(numbers)}"


# ---- the five routes -----------------------------------------------------------------------------------------------


def test_a_server_without_a_model_is_healthy_and_lists_none(endpoint: Endpoint) -> None:
    answer = endpoint.server.ask("GET", "/ping")
    assert (answer.status, answer.body) == (200, b"")
    assert endpoint.page() == {"models": []}


def test_the_life_of_a_model(endpoint: Endpoint, trained: OptMl) -> None:
    """What the platform does, with its own url: /opt/ml/models/{model_name}/model."""
    url = endpoint.put("b5a3/model", read_centers(trained.model))
    described = {"modelName": "b5a3", "modelUrl": url}

    assert endpoint.describe("b5a3").status == 404
    assert endpoint.invoke("b5a3", csv(POINTS)).status == 404

    answer = endpoint.load("b5a3", url)
    assert (answer.status, json.loads(answer.body)) == (200, described)
    assert json.loads(endpoint.describe("b5a3").body) == described
    assert endpoint.page() == {"models": [described]}

    answer = endpoint.invoke("b5a3", csv(POINTS), X_Amzn_SageMaker_Target_Model="customers/7.tar.gz")
    labels, distances = nearest(POINTS, read_centers(trained.model))
    assert answer.status == 200
    found = predictions(answer.content_type, answer.body)
    np.testing.assert_array_equal(found[:, 0], labels)
    np.testing.assert_allclose(found[:, 1], distances, rtol=1e-5)

    answer = endpoint.unload("b5a3")
    assert (answer.status, json.loads(answer.body)) == (200, described)
    for gone in (endpoint.describe("b5a3"), endpoint.invoke("b5a3", csv(POINTS)), endpoint.unload("b5a3")):
        assert (gone.status, gone.error["code"]) == (404, "not_loaded")
    assert endpoint.page() == {"models": []}


def test_each_model_answers_for_itself(endpoint: Endpoint) -> None:
    endpoint.load("origin", endpoint.put("origin", [[0.0, 0.0]]))
    endpoint.load("corner", endpoint.put("corner", [[9.0, 9.0], [3.0, 4.0]]))
    body = b"0,0"
    assert predictions("text/csv", endpoint.invoke("origin", body, Accept="text/csv").body).tolist() == [[0, 0]]
    assert predictions("text/csv", endpoint.invoke("corner", body, Accept="text/csv").body).tolist() == [[1, 5]]


def test_invocation_is_answered_as_by_a_single_model_endpoint(
    endpoint: Endpoint, server: Server, trained: OptMl
) -> None:
    """The same formats, the same headers, the same refusals."""
    endpoint.load("digits", endpoint.put("digits", read_centers(trained.model)))
    for content_type, body in {"text/csv": csv(POINTS), "application/jsonlines": json_lines(POINTS)}.items():
        for accept in ("application/json", "text/csv", "application/jsonlines", "application/x-recordio-protobuf"):
            ours = endpoint.invoke("digits", body, content_type, Accept=accept)
            theirs = server.invoke(body, content_type, Accept=accept)
            assert (ours.status, ours.content_type, ours.body) == (200, accept, theirs.body)
    for body, content_type, accept in (
        (b"1,2,x\n", "text/csv", "*/*"),
        (b"1,2,3\n", "text/csv", "*/*"),
        (b"", "text/csv", "*/*"),
        (csv(POINTS), "text/csv", "image/png"),
        (csv(POINTS), "image/png", "*/*"),
    ):
        ours = endpoint.invoke("digits", body, content_type, Accept=accept)
        theirs = server.invoke(body, content_type, Accept=accept)
        assert ours.status == theirs.status >= 400
        assert ours.error["message"] == theirs.error["message"]
    echoed = endpoint.invoke("digits", csv(POINTS), X_Amzn_SageMaker_Custom_Attributes="trace=7")
    assert echoed.headers["X-Amzn-SageMaker-Custom-Attributes"] == "trace=7"


def test_invocations_belongs_to_endpoints_of_one_model(endpoint: Endpoint) -> None:
    assert endpoint.server.invoke(csv(POINTS)).status == 404


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("PUT", "/models", {"GET", "POST"}),
        ("DELETE", "/models", {"GET", "POST"}),
        ("POST", "/models/x", {"GET", "DELETE"}),
        ("GET", "/models/x/invoke", {"POST"}),
    ],
)
def test_other_methods_are_405(endpoint: Endpoint, method: str, target: str, allowed: set[str]) -> None:
    answer = endpoint.server.ask(method, target)
    assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
    assert allowed <= set(answer.headers["Allow"].split(", "))


@pytest.mark.parametrize("name", ["model:1;v=2?#&+%", "..", "~", "0" * 1024, "%2F", "\\\"'<>"])
def test_names_are_opaque(endpoint: Endpoint, place: Callable[[], str], name: str) -> None:
    url = endpoint.put(place(), [[1.0, 2.0]])
    assert endpoint.load(name, url).status == 200
    assert json.loads(endpoint.describe(name).body) == {"modelName": name, "modelUrl": url}
    assert endpoint.invoke(name, b"1,2").status == 200
    assert endpoint.unload(name).status == 200


# ---- pages ---------------------------------------------------------------------------------------------------------


def test_the_list_comes_in_pages(endpoint: Endpoint, place: Callable[[], str]) -> None:
    url = endpoint.put(place(), [[1.0]])
    names = sorted(["b", "a&limit=1", "c+d", "~", "Z", "10", "9"])
    for name in reversed(names):
        assert endpoint.load(name, url).status == 200
    found, page = [], endpoint.page(limit=2)
    while True:
        assert 1 <= len(page["models"]) <= 2
        found += page["models"]
        if "nextPageToken" not in page:
            break
        page = endpoint.page(limit=2, next_page_token=page["nextPageToken"])
    assert found == [{"modelName": name, "modelUrl": url} for name in names]


def test_a_page_has_100_models_by_default_and_1000_at_most(endpoint: Endpoint, place: Callable[[], str]) -> None:
    url = endpoint.put(place(), [[1.0]])
    with endpoint.server.connection() as connection:
        for number in range(1001):
            connection.request("POST", "/models", json.dumps({"model_name": f"{number:04}", "url": url}))
            connection.getresponse().read()
        first = endpoint.page()
        assert [model["modelName"] for model in first["models"]] == [f"{number:04}" for number in range(100)]
        assert len(endpoint.page(limit=999_999_999)["models"]) == 1000
        assert len(endpoint.page(next_page_token=first["nextPageToken"], limit=1000)["models"]) == 901
        for number in range(1001):
            connection.request("DELETE", f"/models/{number:04}")
            assert connection.getresponse().read()


@pytest.mark.parametrize("limit", ["0", "-1", "ten", "1.5", " 1", "٣", "1e3", "9" * 400])
def test_a_limit_that_is_none_is_400(endpoint: Endpoint, limit: str) -> None:
    answer = endpoint.server.ask("GET", f"/models?limit={urllib.parse.quote(limit)}")
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")
    assert answer.error["message"].startswith("limit: expected an integer of at least 1, found ")


@pytest.mark.parametrize("token", ["nonsense", "%00%ff", "a" * 2000, "../../etc"])
def test_any_token_gives_a_page(endpoint: Endpoint, token: str) -> None:
    assert endpoint.server.ask("GET", f"/models?next_page_token={token}").status == 200


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_a_second_load_is_409(endpoint: Endpoint, place: Callable[[], str]) -> None:
    url = endpoint.put(place(), [[1.0]])
    assert endpoint.load("x", url).status == 200
    answer = endpoint.load("x", url)
    assert (answer.status, answer.error["code"]) == (409, "already_loaded")
    assert answer.error["message"] == "the model 'x' is loaded already."
    assert answer.error["request_id"]


def test_of_many_loads_at_once_one_wins(endpoint: Endpoint, place: Callable[[], str]) -> None:
    url = endpoint.put(place(), np.ones((1000, 500)))
    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(answer.status for answer in pool.map(lambda _: endpoint.load("x", url), range(8)))
    assert statuses == [200] + [409] * 7


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the request's body is empty: expected a JSON object"),
        (b"{", "the request's body is no JSON"),
        (b"\xff\xfe", "the request's body is no JSON"),
        (b'{"model_name": "\\ud800", "url": "x"}', "the request's body is no JSON"),
        (b"[" * 30_000, "the request's body is no JSON"),
        (b"[]", "the request's body: expected a JSON object with model_name and url"),
        (b"null", "the request's body: expected a JSON object"),
        (b'"text"', "the request's body: expected a JSON object"),
        (b"{}", "model_name is missing"),
        (b'{"model_name": "x"}', "url is missing"),
        (b'{"url": "x"}', "model_name is missing"),
        (b'{"model_name": 7, "url": "x"}', "model_name: expected a text, found a number"),
        (b'{"model_name": null, "url": "x"}', "model_name: expected a text, found null"),
        (b'{"model_name": "x", "url": true}', "url: expected a text, found a truth value"),
        (b'{"model_name": "x", "url": {}}', "url: expected a text, found an object"),
        (b'{"model_name": "x", "url": ' + b"[" * 500 + b"]" * 500 + b"}", "url: expected a text, found an array"),
    ],
    ids=lambda value: value[:30] if isinstance(value, bytes) else "",
)
def test_a_request_to_load_that_says_nothing_sensible_is_400(endpoint: Endpoint, body: bytes, message: str) -> None:
    answer = endpoint.server.ask("POST", "/models", body)
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")
    assert answer.error["message"].startswith(message)
    assert len(answer.body) < 1000


@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_request_to_load_is_short(endpoint: Endpoint, in_chunks: bool) -> None:
    body = json.dumps({"model_name": "x", "url": "y", "more": "z" * 65536}).encode()
    answer = endpoint.server.ask("POST", "/models", iter([body]) if in_chunks else body)
    assert (answer.status, answer.error["code"]) == (413, "request_too_long")
    assert answer.error["message"] == "the request's body is longer than 64 KB."


def test_a_request_to_load_may_come_in_chunks_and_say_more(endpoint: Endpoint, place: Callable[[], str]) -> None:
    url = endpoint.put(place(), [[1.0]])
    body = json.dumps({"later": [1, {}], "model_name": "x", "url": url}).encode()
    chunks = (body[first : first + 9] for first in range(0, len(body), 9))
    assert endpoint.server.ask("POST", "/models", chunks).status == 200


@pytest.mark.parametrize("name", ["", "a/b", "a b", "ä", "0" * 1025, "x\n"])
def test_names_that_no_path_could_hold_are_400(endpoint: Endpoint, place: Callable[[], str], name: str) -> None:
    answer = endpoint.load(name, endpoint.put(place(), [[1.0]]))
    assert (answer.status, answer.error["code"]) == (400, "invalid_model")
    assert answer.error["message"].startswith("model_name: expected 1 to 1024 visible ASCII characters")


@pytest.mark.parametrize(
    "url",
    [
        "/etc",
        "/etc/passwd",
        "/proc/self",
        "/",
        "relative",
        "{models}",
        "{models}/../model",
        "{models}/x/../../model",
        "{models}-of-others/x",
        "{models}/outwards",
        "{models}/outwards/ml/model",
        "file://{models}/x",
        "{models}/" + "a/" * 3000,
        "{models}/x\x00",
    ],
)
def test_urls_elsewhere_are_400_and_not_looked_at(endpoint: Endpoint, trained: OptMl, url: str) -> None:
    """Outside of the folder is a valid model: its place is refused, with the same message if it doesn't exist."""
    beside = endpoint.models.parent / "model"
    if not beside.exists():
        artifact.save(artifact.load(trained.model), beside)
    if not (endpoint.models / "outwards").is_symlink():
        endpoint.models.mkdir(exist_ok=True)
        (endpoint.models / "outwards").symlink_to(endpoint.models.parent.parent)
    answer = endpoint.load("x", url.format(models=endpoint.models))
    assert (answer.status, answer.error["code"]) == (400, "invalid_model")
    assert answer.error["message"].startswith(f"url: expected the folder of a model below {endpoint.models}, found ")
    assert endpoint.page() == {"models": []}


def test_a_broken_model_is_400_and_its_name_stays_free(endpoint: Endpoint, place: Callable[[], str]) -> None:
    url = endpoint.put(place(), [[1.0, 2.0]])
    whole = (Path(url) / "model_algo-1").read_bytes()
    damaged = bytearray(whole)
    damaged[64] ^= 1
    for content, cause in ((whole[:-9], "corrupt"), (bytes(damaged), "checksum"), (b"", "corrupt")):
        (Path(url) / "model_algo-1").write_bytes(content)
        answer = endpoint.load("x", url)
        assert (answer.status, answer.error["code"]) == (400, "invalid_model")
        assert cause in answer.error["message"]
        assert b"Traceback" not in answer.body
    (Path(url) / "model_algo-1").write_bytes(whole)
    assert endpoint.load("x", url).status == 200


def test_a_model_of_the_built_in_image_is_loaded(endpoint: Endpoint, place: Callable[[], str]) -> None:
    url = endpoint.put(place(), [[1.0, 2.0], [5.0, 5.0]])
    (Path(url) / "kmeans.json").unlink()
    assert endpoint.load("x", url).status == 200
    assert predictions("text/csv", endpoint.invoke("x", b"5,5", Accept="text/csv").body).tolist() == [[1, 0]]


@pytest.mark.parametrize("url", ["{models}/" + "a" * 300, "{models}/" + "a" * 300 + "/model"])
def test_a_folder_that_cant_be_looked_at_is_400(endpoint: Endpoint, url: str) -> None:
    """Not for its contents, as with one that isn't there: for the system's own refusal."""
    answer = endpoint.load("x", url.format(models=endpoint.models))
    assert (answer.status, answer.error["code"]) == (400, "invalid_model")
    assert answer.error["message"].endswith("can't be read: File name too long.")


def test_connections_reset_within_a_body_are_not_defects(tmp_path: Path) -> None:
    with serving(tmp_path / "ml", tmp_path / "output", SAGEMAKER_MULTI_MODEL="true") as server:
        endpoint = Endpoint(server, tmp_path / "ml")
        assert endpoint.load("x", endpoint.put("x", [[1.0]])).status == 200
        for target in ("/models/x/invoke", "/models"):
            with socket.create_connection((HOST, server.port), timeout=30) as connection:
                # On closing, a reset instead of an end.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 1000\r\n"
                connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
                assert connection.recv(12) == b"HTTP/1.1 100"  # the body is waited for
                connection.sendall(b"1\n")
        wait_until(lambda: server.output.read_text().count('"status":0') == 2, "both requests to be over")
        assert endpoint.invoke("x", b"1").status == 200
        said = server.output.read_text()
        assert "Traceback" not in said
        assert '"status":500' not in said


# ---- memory --------------------------------------------------------------------------------------------------------


def sparse_model(endpoint: Endpoint, name: str, size: int) -> str:
    """A folder whose model_algo-1 is ``size`` bytes long, and takes none on the disk."""
    folder = endpoint.models / name
    folder.mkdir(parents=True)
    with (folder / "model_algo-1").open("wb") as file:
        file.truncate(size)
    return str(folder)


def test_a_model_that_does_not_fit_is_507_before_it_is_read(endpoint: Endpoint, place: Callable[[], str]) -> None:
    memory = resident(endpoint.server)
    answer = endpoint.load("x", sparse_model(endpoint, place(), 1 << 40))
    assert (answer.status, answer.error["code"]) == (507, "no_room")
    assert "MB for models are free: unload others." in answer.error["message"]
    assert resident(endpoint.server) < memory + 20 * MEGABYTE
    assert endpoint.page() == {"models": []}


def resident(server: Server) -> int:
    """Return the bytes of memory that the server's one worker holds."""
    (worker,) = server.workers()
    status = Path(f"/proc/{worker}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


@pytest.mark.parametrize("shapes", [[(10_000, 1_000)], [(1_000, 1_000)] * 12 + [(100, 784)] * 40], ids=["one", "many"])
def test_unloading_gives_the_memory_back(tmp_path: Path, shapes: list[tuple[int, int]]) -> None:
    """One model whose arrays the C library maps one by one, and many whose arrays it cuts out of its heaps."""
    with serving(tmp_path / "ml", tmp_path / "output", SAGEMAKER_MULTI_MODEL="true") as server:
        endpoint = Endpoint(server, tmp_path / "ml")
        urls = {shape: endpoint.put(f"{shape[0]}", np.eye(*shape)) for shape in set(shapes)}
        models = {f"m{number}": shape for number, shape in enumerate(shapes)}

        def use(name: str) -> list[int]:
            row = csv(np.zeros((1, models[name][1]), np.float32))
            steps = endpoint.load(name, urls[models[name]]), endpoint.invoke(name, row), endpoint.invoke(name, b"x")
            return [step.status for step in steps]

        def unload(names: list[str]) -> None:
            assert all(answer.status == 200 for answer in pool.map(endpoint.unload, names))

        with ThreadPoolExecutor(8) as pool:
            assert use("m0") == [200, 200, 400]
            unload(["m0"])
            before = resident(server)
            # An error must not hold the model either.
            assert list(pool.map(use, models)) == [[200, 200, 400]] * len(models)
            # As they are, scaled, and transposed.
            size = sum(3 * 4 * clusters * features for clusters, features in shapes)
            assert resident(server) - before > 0.9 * size
            unload(list(models)[::2])
            unload(list(models)[1::2])
        # At once: nothing is waited for after the answer.
        assert resident(server) - before < 0.1 * size + 5 * MEGABYTE


def test_unloading_waits_for_an_invocation_under_way(endpoint: Endpoint, place: Callable[[], str]) -> None:
    """It is answered by the model that it began with; the name is free at once, and another model may take it."""
    centers = np.arange(100_000, dtype=np.float32)[None]
    other = endpoint.put(place(), [[7.0, 7.0]])
    assert endpoint.load("x", endpoint.put(place(), centers)).status == 200
    # More than a connection's buffers hold: when three quarters are sent, the server must be reading the body.
    body = npy(np.repeat(centers, 40, axis=0))
    begun = len(body) * 3 // 4
    with ThreadPoolExecutor(1) as pool, endpoint.server.connection() as connection:
        connection.putrequest("POST", f"{path('x')}/invoke")
        connection.putheader("Content-Type", "application/x-npy")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body[:begun])
        unloading = pool.submit(endpoint.unload, "x")
        wait_until(lambda: endpoint.describe("x").status == 404, "the name to be free")
        assert endpoint.load("x", other).status == 200
        assert not unloading.done()
        connection.send(body[begun:])
        answer = Answer.of(connection.getresponse())
        assert answer.status == 200
        assert predictions(answer.content_type, answer.body).tolist() == [[0, 0]] * 40
        assert unloading.result(timeout=30).status == 200
    assert json.loads(endpoint.describe("x").body)["modelUrl"] == other


# ---- at once -------------------------------------------------------------------------------------------------------


def test_loading_and_unloading_disturbs_no_invocation(endpoint: Endpoint, place: Callable[[], str]) -> None:
    """One model is asked all the while others come and go: each answer is right, and each ping is answered."""
    centers = np.random.default_rng(1).normal(size=(20, 50)).astype(np.float32)
    assert endpoint.load("asked", endpoint.put(place(), centers)).status == 200
    url = endpoint.put(place(), np.ones((2000, 500)))
    body, expected = csv(centers), np.arange(20)

    def come_and_go(name: str) -> list[int]:
        return [step(name).status for _ in range(10) for step in (lambda n: endpoint.load(n, url), endpoint.unload)]

    def ask(_: int) -> bool:
        answer = endpoint.invoke("asked", body, Accept="text/csv")
        assert endpoint.server.ask("GET", "/ping").status == 200
        return answer.status == 200 and bool((predictions("text/csv", answer.body)[:, 0] == expected).all())

    with ThreadPoolExecutor(8) as pool:
        coming = [pool.submit(come_and_go, name) for name in "abcd"]
        asked = list(pool.map(ask, range(100)))
        assert all(asked)
        assert [future.result(timeout=60) for future in coming] == [[200] * 20] * 4


def test_a_server_that_lost_its_process_is_back_with_no_model(tmp_path: Path) -> None:
    """The platform learns it from GET /models, and loads again."""
    with serving(tmp_path / "ml", tmp_path / "output", SAGEMAKER_MULTI_MODEL="true") as server:
        endpoint = Endpoint(server, tmp_path / "ml")
        url = endpoint.put("x", [[1.0]])
        assert endpoint.load("x", url).status == 200
        (worker,) = server.workers()
        os.kill(worker, 9)
        wait_until(lambda: bool(server.workers()) and worker not in server.workers(), "another worker")
        assert endpoint.page() == {"models": []}
        assert endpoint.load("x", url).status == 200
        assert server.stop() == 0


def test_an_endpoint_of_one_model_has_no_such_routes(server: Server) -> None:
    assert server.ask("GET", "/models").status == 404
    assert server.ask("POST", "/models", b"{}").status == 404
