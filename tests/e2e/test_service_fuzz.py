"""The scoring service under requests that are generated from its own OpenAPI document."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import novad
from hostile_requests import GOOD, b64
from novad.config import Workspace
from novad.serving.app import build_app
from novad.serving.keys import Role, add_key
from novad.serving.service import Service
from novad.tracking import LoggedDecision, PublishedRun, latest_decisions, promote
from small_line import LINE, small_line

DOCUMENT = build_app(Service(Workspace(Path("none")), Path("none"))).openapi()
ROUTES = [(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods]
# Constants of the source are sent too, and may be words of an answer.
SOURCE = "".join(path.read_text("utf-8") for path in Path(novad.__file__).parent.rglob("*.py"))
DOCUMENTED = [status_code_conformance, content_type_conformance, response_schema_conformance]
GOOD_BODIES = {
    "/v1/lines/{line}/score": {"images": [GOOD]},
    "/invocations": {"dataframe_records": [{"image": GOOD}]},
    "/v1/predictions/{prediction_id}/verdict": {"name": "ada", "reason": "seen", "verdict": "good"},
}
# Who decides on the line would change it for the other tests; test_console.py holds what they answer.
DECIDING = ("promote", "reject", "rollback")


@dataclass(frozen=True)
class Api:
    """A running service, as schemathesis sees it, and what a good request may name."""

    schema: Any
    headers: dict[str, str]
    known: dict[str, Any]

    def answer(self, case: Case) -> Any:
        """The answer; it is one that the document tells of, and no failure of the service."""
        answer = case.call(headers=self.headers)
        case.validate_response(answer, checks=DOCUMENTED)
        assert answer.status_code < 500, answer.text
        if answer.status_code >= 400:
            error = answer.json()["error"]
            assert error["code"]
            assert error["message"]
        return answer


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Api]:
    with (
        small_line(
            tmp_path_factory.mktemp("fuzz"), empty_database, train=16, test_good=8, per_defect=2
        ) as workspace,
        pytest.MonkeyPatch.context() as patched,
    ):
        patched.setattr("novad.tracking.registry.gate", lambda *_: [])
        promote(workspace, LINE, 1, "ada", "first")
        keys = workspace.state / "serve" / "keys.json"
        headers = {"X-API-Key": add_key(keys, Role.ADMIN)}
        service = Service(workspace, keys)
        service.start()
        try:
            schema = schemathesis.openapi.from_asgi("/openapi.json", build_app(service))
            yield Api(schema, headers, _known(workspace, schema, headers))
        finally:
            service.stop()


def _known(workspace: Workspace, schema: Any, headers: dict[str, str]) -> dict[str, Any]:
    """A value that exists for each parameter that must."""
    score = schema["/v1/lines/{line}/score"]["POST"]
    image = workspace.root / "data" / LINE / "test" / "good" / "000.png"
    body = {"images": [b64(image.read_bytes())]}
    case = score.Case(path_parameters={"line": LINE}, body=body, media_type="application/json")
    assert case.call(headers=headers).status_code == 200
    [found] = latest_decisions(workspace, limit=1)
    decision: LoggedDecision = found.decision
    heatmap = PublishedRun.open(workspace, LINE, 1).names("evaluate/heatmaps")[0]
    return {
        "line": LINE,
        "version": 1,
        "left": 1,
        "right": 1,
        "sha256": decision.image_sha256,
        "prediction_id": decision.prediction_id,
        "name": Path(heatmap).name,
    }


def _parameters(method: str, path: str, place: str) -> list[str]:
    """Names of the parameters that a route must have in the path or the query."""
    parameters = DOCUMENT["paths"][path][method].get("parameters", [])
    return [each["name"] for each in parameters if each["in"] == place and each["required"]]


def _texts(value: Any) -> Iterator[str]:
    """Every text in what was sent that is long enough to be known again."""
    if isinstance(value, dict):
        yield from (text for each in value.items() for text in _texts(list(each)))
    elif isinstance(value, list):
        yield from (text for each in value for text in _texts(each))
    elif isinstance(value, str) and len(value) >= 3 and value not in SOURCE:
        yield value


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_whatever_is_sent_the_answer_is_a_documented_one_without_an_echo(
    method: str, path: str, api: Api
) -> None:
    operation = api.schema[path][method.upper()]
    names = _parameters(method, path, "path")
    known = {name: api.known[name] for name in names}
    told = DOCUMENT["paths"][path][method]
    # Where nothing can be sent, nothing can be sent wrongly.
    modes = list(GenerationMode) if told.keys() & {"parameters", "requestBody", "security"} else []
    for mode, values in product(modes or [GenerationMode.POSITIVE], [None, known] if known else [None]):

        @settings(
            max_examples=8,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(mode, headers=api.headers, path_parameters=values))
        def ask(case: Case) -> None:
            answer = api.answer(case)
            if answer.status_code >= 400:
                sent = set(_texts([case.query, case.body, case.path_parameters])) - {LINE}
                assert not [text for text in sent if text in answer.text]

        ask()
    score = api.schema["/v1/lines/{line}/score"]["POST"]
    good = score.Case(path_parameters={"line": LINE}, body={"images": [GOOD]}, media_type="application/json")
    assert api.answer(good).json()["version"] == 1


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if not route[1].endswith(DECIDING)])
def test_a_good_request_is_answered_as_documented(method: str, path: str, api: Api) -> None:
    body = {"body": GOOD_BODIES[path], "media_type": "application/json"} if path in GOOD_BODIES else {}
    case = api.schema[path][method.upper()].Case(
        path_parameters={name: api.known[name] for name in _parameters(method, path, "path")},
        query={name: api.known[name] for name in _parameters(method, path, "query")},
        **body,
    )
    assert api.answer(case).status_code == 200
