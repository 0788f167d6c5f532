"""The pages that people read, rendered here: no script, no asset from outside, one stylesheet of our own."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from voxpria_server.errors import CODES
from voxpria_server.reference.openapi import TAGS, document, resolve

if TYPE_CHECKING:
    from jinja2 import Environment
    from markdown_it import MarkdownIt

Json = Mapping[str, Any]

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
GUIDES = Path(__file__).parents[3] / "docs" / "guides"
_FOLDER = Path(__file__).parent / "templates"
_ORDER = ("GET", "POST", "PUT", "PATCH", "DELETE")
_KEY = "vox_sk_test_abc123xyz789"


@cache
def _templates() -> "Environment":
    """Return the templates, loaded with the first page: a start need not wait for what makes pages."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape  # noqa: PLC0415

    templates = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"markdown": _render_markdown, "inline": _render_inline, "breakable": _breakable}
    return templates


@cache
def _markdown() -> "MarkdownIt":
    from markdown_it import MarkdownIt  # noqa: PLC0415

    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _render_markdown(text: str) -> Markup:
    return Markup(_markdown().render(text))  # noqa: S704  (CommonMark without HTML escapes what it is given)


def _breakable(name: str) -> Markup:
    """Return a name that may go on in the next line after each of its words."""
    return Markup(re.sub(r"([._])", r"\1<wbr>", str(Markup.escape(name))))  # noqa: S704  (escaped)


def _render_inline(text: str) -> Markup:
    return Markup(_markdown().renderInline(text))  # noqa: S704  (as above)


def render(template: str, **values: object) -> str:
    """Return a page."""
    return _templates().get_template(template).render(**values)


@cache
def style() -> str:
    """Return the stylesheet."""
    return (_FOLDER / "style.css").read_text()


@cache
def icon() -> str:
    """Return the icon that browsers show, and ask for where no page names one."""
    return (_FOLDER / "icon.svg").read_text()


@cache
def reference(base_url: str) -> str:
    """Return the reference, made of the OpenAPI document."""
    info = document()["info"]
    return render(
        "reference.html",
        base_url=base_url,
        summary=info["summary"],
        description=info["description"],
        codes=CODES,
        groups=[
            {
                "name": name,
                "id": name.lower().replace(" ", "-"),
                "text": text,
                "operations": list(_group(name, base_url)),
            }
            for name, text in TAGS.items()
        ],
        hooks=[_hook(name, item["post"]) for name, item in document()["webhooks"].items()],
    )


def guides() -> list[dict[str, str]]:
    """Return the guides' names and titles, in their order."""
    return [{"name": path.stem, "title": _title(path)} for path in sorted(GUIDES.glob("*.md"))]


def guide(name: str) -> str | None:
    """Return a guide's page; None if there is none of that name."""
    found = next((each for each in guides() if each["name"] == name), None)
    if found is None:
        return None
    text = (GUIDES / f"{name}.md").read_text()
    html = re.sub(r'href="([\w-]+)\.md', r'href="/docs/guides/\1', _markdown().render(text))
    return render("guide.html", guides=guides(), **found, html=Markup(html))  # noqa: S704  (our own file)


def list_of_guides() -> str:
    """Return the page that lists the guides."""
    return render("guide.html", guides=guides(), name="", title="Guides", html="")


def curl(
    base_url: str, path: str, method: str, body: object = None, *, is_keyed: bool = True, is_file: bool = False
) -> str:
    """Return a request as a curl command; with `is_file` it keeps the answer under its own name."""
    words = [
        "curl",
        *(["-O"] if is_file else []),
        *(["-X", method] if method not in {"GET", "POST"} or (body is None and method != "GET") else []),
    ]
    lines = [" ".join([*words, shlex.quote(base_url + path)])]
    if is_keyed:
        lines.append(f"-H 'Authorization: Bearer {_KEY}'")
    if body is not None:
        lines.append("-H 'Content-Type: application/json'")
        lines.append("-d " + shlex.quote(json.dumps(body, indent=2, ensure_ascii=False)))
    return " \\\n  ".join(lines)


def _group(tag: str, base_url: str) -> Iterator[Json]:
    everything = ((path, method, one) for path, item in document()["paths"].items() for method, one in item.items())
    mine = [(path, method.upper(), one) for path, method, one in everything if tag in one["tags"]]
    places = list(document()["paths"])
    for path, method, operation in sorted(mine, key=lambda each: (places.index(each[0]), _ORDER.index(each[1]))):
        yield _operation(base_url, path, method, operation)


def _operation(base_url: str, path: str, method: str, operation: Json) -> Json:
    scopes = [scope for each in operation["security"] for scope in each["ApiKey"]]
    media = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return {
        "id": operation["operationId"],
        "summary": operation["summary"],
        "description": operation["description"],
        "method": method,
        "path": path,
        "scope": scopes[0] if scopes else None,
        "parameters": [_parameter(each) for each in operation.get("parameters", ())],
        "bodies": _kinds(media["schema"]) if media else {},
        "errors": _errors(operation),
        "curls": {
            name: curl(
                base_url,
                _example_path(path, operation),
                method,
                body,
                is_keyed=bool(scopes),
                is_file=_is_file(operation),
            )
            for name, body in _bodies(media).items()
        },
        "answers": _answers(operation),
    }


def _parameter(parameter: Json) -> Json:
    schema = parameter["schema"]
    text = parameter.get("description", "")
    if "default" in schema and schema["default"] is not None:
        text += f" Default: `{json.dumps(schema['default'])}`."
    kind = _type(schema) + (f", in the {parameter['in']}" if parameter["in"] != "query" else "")
    return {"name": parameter["name"], "required": parameter.get("required", False), "type": kind, "text": text}


def _kinds(schema: Json) -> dict[str, list[Json]]:
    """Return the fields of a body; of each kind of it, by what tells them apart, where there are several."""
    schema = _resolved(schema)
    if "discriminator" not in schema:
        return {"": list(_fields(schema))}
    name = schema["discriminator"]["propertyName"]
    kinds = schema["discriminator"]["mapping"].items()
    return {f"{name}: {value}": list(_fields({"$ref": reference})) for value, reference in kinds}


def _fields(schema: Json, prefix: str = "", depth: int = 0) -> Iterator[Json]:
    """Yield the fields of an object, those of objects within it too."""
    schema = _resolved(schema)
    for name, field in schema.get("properties", {}).items():
        inner = _resolved(field)
        text = field.get("description") or inner.get("description", "")
        is_required = name in schema.get("required", ())
        yield {"name": prefix + name, "required": is_required, "type": _type(field), "text": text}
        if depth < 2:
            within = inner.get("items", inner)
            yield from _fields(within, f"{prefix}{name}{'[]' if 'items' in inner else ''}.", depth + 1)


def _resolved(schema: Json) -> Json:
    """Return a schema without references, and without the choice of null."""
    if "$ref" in schema:
        return resolve(dict(schema))
    choices = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    return (
        {**_resolved(choices[0]), **{k: v for k, v in schema.items() if k != "anyOf"}} if len(choices) == 1 else schema
    )


def _type(schema: Json) -> str:
    if schema.get("anyOf"):
        return " or ".join(dict.fromkeys(_type(each) for each in schema["anyOf"]))
    schema = _resolved(schema)
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    low, high = schema.get("minimum"), schema.get("maximum")
    return str(schema.get("type", "any")) + (f" {low:g} to {high:g}" if low is not None and high is not None else "")


def _errors(operation: Json) -> dict[str, list[str]]:
    answers = {status: resolve(each) for status, each in operation["responses"].items() if int(status) >= 400}
    return {status: list(each["content"]["application/json"]["examples"]) for status, each in answers.items()}


def _bodies(media: Json | None) -> dict[str, Any]:
    if media is None:
        return {"": None}
    return {name: each["value"] for name, each in media.get("examples", {"": {"value": media.get("example")}}).items()}


def _answers(operation: Json) -> dict[str, str]:
    found = {}
    for status, each in operation["responses"].items():
        media = resolve(each).get("content", {}).get("application/json", {})
        if int(status) < 400 and "example" in media:
            found[status] = json.dumps(media["example"], indent=2, ensure_ascii=False)
    return found


def _is_file(operation: Json) -> bool:
    content = operation["responses"].get("200", {}).get("content", {})
    return bool(content) and "application/json" not in content


def _example_path(path: str, operation: Json) -> str:
    given = {each["name"]: each for each in operation.get("parameters", ())}
    path = re.sub(r"\{(\w+)\}", lambda match: str(given[match[1]]["example"]), path)
    needed = [
        f"{name}={each['example']}" for name, each in given.items() if each["in"] == "query" and each.get("required")
    ]
    return path + ("?" + "&".join(needed) if needed else "")


def _hook(name: str, operation: Json) -> Json:
    example = operation["requestBody"]["content"]["application/json"]["example"]
    return {
        "name": name,
        "id": "event-" + name.replace(".", "-"),
        "text": operation["summary"] + ".",
        "example": json.dumps(example, indent=2, ensure_ascii=False),
        "headers": [_parameter(each) for each in operation["parameters"]],
    }


def _title(path: Path) -> str:
    return path.read_text().partition("\n")[0].lstrip("# ")
