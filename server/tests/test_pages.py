"""What people read: the reference, the guides and the status page."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from voxpria_server.errors import CODES
from voxpria_server.kit.clock import utc_now
from voxpria_server.reference import pages, settings_table, status

from server.tests.contract import operations

ROOT = Path(__file__).parents[2]
SETTINGS = ("voxpria_server.settings", "voxpria_edge.settings")


class Page(HTMLParser):
    """What of a page can point elsewhere."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if tag == "a" and "href" in given else []
        self.loaded += [given[name] for name in ("src", "data", "srcset") if name in given]
        self.loaded += [given["href"]] if tag == "link" else []
        assert not [name for name in given if name.startswith("on") or name == "style"], given


PATHS = ["/docs", "/docs/guides", "/status", *(f"/docs/guides/{path.stem}" for path in pages.GUIDES.glob("*.md"))]


async def test_no_page_needs_anything_from_outside_or_runs_a_script(client):
    for path in PATHS:
        answer = await client.get(path)
        page = Page(answer.text)
        assert answer.status_code == 200
        assert page.loaded == ["/docs/icon.svg", "/docs/style.css"]
        assert "script" not in page.tags
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert (await client.get("/docs/icon.svg")).headers["content-type"] == "image/svg+xml"
    style = await client.get("/docs/style.css")
    assert "url(" not in style.text
    assert "@import" not in style.text


async def test_every_link_leads_somewhere(client):
    fetched: dict[str, Page] = {}

    async def fetch(path: str) -> Page:
        if path not in fetched:
            answer = await client.get(path)
            assert answer.status_code == 200, path
            fetched[path] = Page(answer.text)
        return fetched[path]

    for path in PATHS:
        page = await fetch(path)
        assert len(page.ids) == len(set(page.ids))
        for link in page.links:
            where, _, anchor = link.partition("#")
            if where.startswith("http"):
                continue
            target = await fetch(where or path)
            assert not anchor or anchor in target.ids, f"{path}: {link}"


async def test_the_reference_names_every_endpoint_parameter_error_and_event(client):
    text = (await client.get("/docs")).text.replace("<wbr>", "")  # where a name may break
    for (path, _), operation in operations().items():
        assert f'<article id="{operation["operationId"]}">' in text
        assert f"<code>{path}</code>" in text
        for parameter in operation.get("parameters", ()):
            assert f"<code>{parameter['name']}</code>" in text
    for code in CODES:
        assert f'id="error-{code}"' in text
    for event in ("call-started", "call-ended", "call-failed", "number-provisioned", "trunk-updated"):
        assert f'id="event-{event}"' in text


@pytest.mark.unit
def test_every_setting_is_documented():
    assert (ROOT / "docs" / "settings.md").read_text() == settings_table.page(SETTINGS), "renew it: ./run openapi"


async def test_the_status_says_what_is_down_and_no_tenants_data(api, client):
    body = {"name": "Secret trunk name", "provider": "generic", "credentials": {}, "config": {"server": "192.0.2.7"}}
    await client.post("/v1/sip/trunks", json=body)
    answer = await client.get("/status.json")
    told = answer.json()
    assert told["parts"]["Database"]["status"] == "operational"
    assert told["parts"]["Edge"]["status"] == "down"  # none has reported here
    assert told["status"] == "down"
    assert not re.search(r"Secret|192\.0\.2|acct_|trunk_", answer.text)
    assert (await client.get("/status", headers={"Accept": "application/json"})).json()["parts"] == told["parts"]
    assert told["checked_at"][:10] in {utc_now().date().isoformat()}


@pytest.mark.unit
@pytest.mark.parametrize(
    ("reached", "seen", "state"),
    [(0, 0, "unknown"), (0, 3, "down"), (1, 3, "degraded"), (3, 3, "operational")],
)
def test_a_provider_is_judged_by_the_trunks_that_reach_it(reached, seen, state):
    assert status.judge(reached, seen) == state
