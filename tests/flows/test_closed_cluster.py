"""Nobody but the run gets into its Dask cluster, on the same machine neither."""

from __future__ import annotations

import importlib.util
import socket
import ssl
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from distributed import Client
from distributed.security import Security

from flows.engine.clusters import dask_client
from portrait_core.errors import InputError
from portrait_core.settings import Settings, load_settings
from tests.deployments.files import DEPLOYMENTS, run_python


def _settings(*changes: str) -> Settings:
    return load_settings("embedded", ["runner.kind=local_cluster", "runner.workers=1", *changes])


def _listening() -> dict[int, str]:
    """The ports of this process and its children, and the addresses that they are open to."""
    own = psutil.Process()
    tree = [own, *own.children(recursive=True)]
    found = [one for process in tree for one in process.net_connections("tcp") if one.status == "LISTEN"]
    return {one.laddr.port: one.laddr.ip for one in found}


@pytest.fixture(scope="module")
def before() -> set[int]:
    """Ports that this process listened on before there was a cluster."""
    return set(_listening())


@pytest.fixture(scope="module")
def cluster(before: set[int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a cluster of one worker, where another user knew the folder that Dask would take."""
    temporary = tmp_path_factory.mktemp("temporary")
    (temporary / "dask-scratch-space").mkdir()
    (temporary / "dask-scratch-space" / "of_another_user.py").write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        with dask_client(_settings()) as client:
            yield client
    assert [path.name for path in temporary.iterdir()] == ["dask-scratch-space"], "the rest is removed"


def _address(client: Client) -> str:
    return str(client.scheduler_info()["address"])


def test_every_socket_asks_for_a_certificate(cluster: Client, before: set[int]) -> None:
    ports = {port: address for port, address in _listening().items() if port not in before}
    assert len(ports) == 3, "scheduler, nanny and worker"
    assert set(ports.values()) == {"127.0.0.1"}
    for port in ports:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", port), 5) as plain,
            pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"),
            context.wrap_socket(plain) as tls,
        ):
            tls.recv(1)


@pytest.mark.parametrize("who", ["plain", "other certificates"])
def test_others_run_nothing_and_read_nothing(cluster: Client, who: str) -> None:
    (worker,) = cluster.scheduler_info(n_workers=-1)["workers"]
    security = Security(require_encryption=False) if who == "plain" else Security.temporary()
    for address in (_address(cluster), worker):
        place = address.replace("tls://", "tcp://") if who == "plain" else address
        with pytest.raises(OSError, match=r"(?i)closed|certificate|timed out"):
            Client(place, security=security, timeout=1, set_as_default=False)


def test_its_temporary_files_are_private(cluster: Client) -> None:
    assert importlib.util.find_spec("of_another_user") is None
    (folder,) = cluster.run(lambda dask_worker: dask_worker.local_directory).values()
    private = Path(folder).parent.parent
    assert private.parent == Path(tempfile.gettempdir())
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "address",
    ["tcp://host:8786", "host:8786", "tcp://10.0.0.1:8786", "tcp://127.0.0.1@host:8786", "ws://127.0.0.1:1"],
)
def test_another_host_without_tls_is_refused(address: str) -> None:
    settings = load_settings("embedded", ["runner.kind=address", f"runner.address={address}"])
    with (
        pytest.raises(InputError, match=r"without TLS.*certificates\.py.*allow_plain=true"),
        dask_client(settings),
    ):
        pass


def test_kubernetes_has_no_tls_and_says_so() -> None:
    settings = load_settings("embedded", ["runner.kind=kubernetes", "runner.workers=1"])
    with pytest.raises(InputError, match=r"knows no TLS.*allow_plain=true"), dask_client(settings):
        pass


@pytest.mark.parametrize("kind", ["local_cluster", "local_gpus", "slurm"])
def test_its_own_cluster_is_never_without(kind: str) -> None:
    load_settings("embedded", [f"runner.kind={kind}", "runner.cluster.security=true"])
    with pytest.raises(ValueError, match="always has certificates"):
        load_settings("embedded", [f"runner.kind={kind}", "runner.cluster.security=false"])


def test_a_given_scheduler_with_other_certificates(cluster: Client, tmp_path: Path) -> None:
    address = _address(cluster)
    settings = load_settings("embedded", ["runner.kind=address", f"runner.address={address}"])
    with (
        pytest.raises(InputError, match=r"needs certificates.*source deployments/tls\.sh"),
        dask_client(settings),
    ):
        pass
    run_python(DEPLOYMENTS / "certificates.py", tmp_path / "tls")
    with (
        dask.config.set(_files(tmp_path / "tls")),
        pytest.raises(InputError, match="each other's certificates"),
        dask_client(settings),
    ):
        pass


def test_plain_where_dask_wants_tls() -> None:
    settings = load_settings("embedded", ["runner.kind=address", "runner.address=tcp://127.0.0.1:1"])
    with (
        dask.config.set({"distributed.comm.require-encryption": True}),
        pytest.raises(InputError, match="without TLS, which Dask's configuration requires"),
        dask_client(settings),
    ):
        pass


def _files(folder: Path) -> dict[str, Any]:
    named = {"ca-file": "ca.pem", "client.cert": "dask.pem", "client.key": "dask-key.pem"}
    return {f"distributed.comm.tls.{name}": str(folder / file) for name, file in named.items()}
