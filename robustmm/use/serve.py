"""A local page on which modalities are taken away from a sample: nothing is fetched from outside."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from robustmm.errors import DataError, RobustmmError
from robustmm.predictor import Predictor
from robustmm.use.explore import explore
from robustmm.use.files import suffixes_of
from robustmm.use.held_out import HeldOut

if TYPE_CHECKING:
    from flask import Flask, Response

HOME = Path(__file__).parent
#: Bytes of an upload at most.
LARGEST = 128 << 20
LOCAL = ("127.0.0.1", "localhost", "::1")
#: The page holds its own styles and scripts, and asks nobody else for anything.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; connect-src 'self'"


def import_flask() -> Any:
    """Flask.

    Raises:
        RobustmmError: it is not installed.
    """
    try:
        return importlib.import_module("flask")
    except ImportError as error:
        raise RobustmmError("robustmm serve needs flask: pip install 'robustmm[serve]'") from error


def make_app(predictor: Predictor, test: HeldOut, *, hosts: tuple[str, ...] = LOCAL) -> Flask:
    """The page and what it asks for.

    Args:
        predictor: Of the run.
        test: Its test part, to pick samples from.
        hosts: Names under which the page answers; others are refused, so that no foreign site reads it by a name of
            its own. () answers to every name.

    Raises:
        RobustmmError: Flask is not installed.
    """
    flask = import_flask()
    app: Flask = flask.Flask("robustmm", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST
    page = render_page(predictor, test)

    @app.before_request
    def check_host() -> Any:
        name = flask.request.host.rsplit(":", 1)[0].strip("[]")
        return None if not hosts or name in hosts else (f"this page is served at {hosts[0]} alone", 403)

    @app.after_request
    def protect(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        return response

    @app.get("/")
    def index() -> str:
        return page

    @app.get("/sample/<int:position>")
    def sample(position: int) -> Any:
        return _answer(lambda: of_sample(predictor, test, position))

    @app.post("/files")
    def files() -> Any:
        return _answer(lambda: of_files(predictor, flask.request.files, flask.request.form))

    return app


def _answer(make: Callable[[], dict[str, Any]]) -> Any:
    """JSON, or the user's mistake in words."""
    try:
        return make()
    except RobustmmError as error:
        return {"error": str(error)}, 400


def of_sample(predictor: Predictor, test: HeldOut, position: int) -> dict[str, Any]:
    """A sample of the test part under every combination.

    Raises:
        DataError: there is none of that number.
    """
    if test.part is None or position >= len(test.part):
        raise DataError(f"there is no test sample {position}")
    _, sample = test.part[position, 0]
    given = {one.name: sample["inputs"].get(one.name) for one in predictor.modalities}
    return explore(predictor, given, id=sample["id"], target=sample["target"])


def of_files(predictor: Predictor, files: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """Uploaded files, or numbers in text, under every combination; they are kept no longer than that takes.

    Raises:
        DataError: nothing is given, or something cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        given: dict[str, Any] = {name: text for name, text in texts.items() if text.strip()}
        for name, file in files.items():
            if not file.filename:
                continue
            path = Path(folder) / f"{len(given)}{Path(file.filename).suffix.lower()}"
            file.save(path)
            given[name] = path
        try:
            return explore(predictor, given, id="own files")
        except DataError as error:
            raise DataError(str(error).replace(f"{folder}/", "")) from error


def render_page(predictor: Predictor, test: HeldOut) -> str:
    """The page itself; everything else it fetches from the same server."""
    facts = predictor.signature.facts
    environment = Environment(
        loader=FileSystemLoader(HOME), undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.jinja").render(
        style=Markup((HOME / "page.css").read_text(encoding="utf-8")),
        script=Markup((HOME / "page.js").read_text(encoding="utf-8")),
        name=facts.get("name", "run"),
        facts={
            "method": facts.get("method"),
            "missing policy": facts.get("missing_policy"),
            "trained on": facts.get("dataset"),
        },
        modalities=[
            {
                "name": one.name,
                "kind": one.kind,
                "shape": " x ".join(map(str, one.shape)),
                "unit": one.unit,
                "accept": ",".join(suffixes_of(one)),
            }
            for one in predictor.modalities
        ],
        samples=0 if test.part is None else len(test.part),
        reason=test.reason,
        dense=predictor.method.task.dense,
        continuous=predictor.method.task.continuous,
    )


def serve(app: Flask, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Answer until the process is stopped; ``ready`` is told the address once there is one.

    Raises:
        RobustmmError: the port is taken, or may not be used.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    serving = importlib.import_module("werkzeug.serving")
    advice = io.StringIO()
    try:
        with contextlib.redirect_stderr(advice):  # werkzeug prints advice of its own, and ends the process
            server = serving.make_server(host, port, app)  # one request at a time: the model is one
    except (OSError, SystemExit) as error:
        reason = next(iter(advice.getvalue().splitlines()), str(error))
        raise RobustmmError(f"{host}:{port} cannot be used ({reason}); give another --port") from error
    ready(f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}")
    server.serve_forever()
