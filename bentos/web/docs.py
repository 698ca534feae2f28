"""The API's page for people, rendered from its OpenAPI document. Knows no particular service.

Without JavaScript it lists the endpoints and commands to try them; `docs.js` adds a form to each.
"""

import json
from collections.abc import Iterator
from typing import Any

from bentos.web import html
from bentos.web.html import Site, text

SCRIPT = "/page/docs.js"
FILE = "picture.png"
"""Name of the file in commands."""


def page(site: Site, document: dict[str, Any], base: str) -> str:
    """Render the document: each endpoint with what it takes and answers, and commands to try it.

    Args:
        site: whose API it is.
        document: an OpenAPI document.
        base: URL of the service.
    """
    lead = (
        'Try each endpoint here, or copy its command. <a href="/openapi.json">openapi.json</a> describes the API for '
        "programs."
    )
    sections = [
        "".join(_section(base, path, method, operation))
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    key = '<section id="key-section" hidden></section>'
    return html.page(site, "API", lead, [key, *sections], script=SCRIPT)


def _section(base: str, path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    name = operation["operationId"]
    yield f'<section class="operation" id="{text(name)}" aria-labelledby="{text(name)}-title" '
    yield f'data-method="{text(method)}" data-path="{text(path)}">'
    yield f'<h2 id="{text(name)}-title"><span class="method">{method.upper()}</span> {text(path)}</h2>'
    yield f"<p>{text(operation['summary'])}.</p>"
    yield "<details><summary>Commands</summary>"
    yield from (f"<pre>{text(command)}</pre>" for command in _commands(base, path, method, operation))
    yield "</details><details><summary>Answers</summary><table>"
    for status, response in operation["responses"].items():
        yield f"<tr><th scope='row'>{status}</th><td>{text(response['description'])}"
        for content in response.get("content", {}).values():
            if "example" in content and int(status) < 300:
                yield f"<pre>{text(json.dumps(content['example'], indent=1))}</pre>"
        yield "</td></tr>"
    yield "</table></details></section>"


def _commands(base: str, path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    url = base + path
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            url = url.replace(f"{{{parameter['name']}}}", parameter["example"])
    if method == "get":
        yield f"curl {url}"
        return
    for media_type, content in operation["requestBody"]["content"].items():
        if media_type == "multipart/form-data":
            field = content["schema"]["required"][0]
            yield f"curl {url} -F {field}=@{FILE}"
        elif media_type == "image/*":
            yield f"curl {url} -H 'content-type: image/png' --data-binary @{FILE}"
        elif media_type == "text/csv":
            yield f"curl {url} -H 'content-type: text/csv' --data-binary @feedback.csv"
        else:
            yield f"curl {url} -H 'content-type: {media_type}' -d '{json.dumps(content['example'])}'"
