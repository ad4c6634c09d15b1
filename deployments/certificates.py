"""Make certificates with which a Dask scheduler, its workers and its clients recognise each other.

    python deployments/certificates.py FOLDER [--days 365] [--names HOST ...]

FOLDER, which must not exist yet, then holds ``ca.pem``, the authority; ``dask.pem``, the certificate that all
processes of the cluster present; and ``dask-key.pem``, its key. Whoever has the key can run any code in the
cluster. The authority's own key is kept nowhere: to admit nobody but the holders of a new key, make a new
folder and start the cluster again with it. Dask compares the authority and not the names of hosts, so one
certificate serves all hosts; other programs may want to find the names in it.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLOCKS = timedelta(minutes=10)
"""Time by which the clocks of two hosts may differ."""


def make_certificates(folder: Path, days: int, names: list[str]) -> datetime:
    """Write an authority, a certificate and its key, and return the time until which they are valid.

    Args:
        folder: folder to make.
        days: days of validity.
        names: names and addresses of hosts that the certificate also mentions.

    Raises:
        FileExistsError: the folder exists.
        ValueError: a name cannot stand in a certificate.
    """
    begin = datetime.now(UTC).replace(microsecond=0)
    end = begin + timedelta(days=days)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "portrait authority")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "portrait dask")])
    identity = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())

    def certificate(name: x509.Name, holder: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(holder.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin - CLOCKS)
            .not_valid_after(end)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identity), False)
        )

    ca = (
        certificate(issuer, authority_key)
        .add_extension(identity, False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(_key_usage(signs_certificates=True), True)
    )
    dask = (
        certificate(subject, key)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(_key_usage(signs_certificates=False), True)
        # Each process is the server of some connections and the client of others.
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False
        )
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), False)
    )
    pem = serialization.Encoding.PEM
    files = {
        "ca.pem": ca.sign(authority_key, hashes.SHA256()).public_bytes(pem),
        "dask.pem": dask.sign(authority_key, hashes.SHA256()).public_bytes(pem),
        "dask-key.pem": key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    }
    folder.mkdir(mode=0o700, parents=True)
    for name, content in files.items():
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "wb") as stream:
            stream.write(content)
    return end


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Make certificates for a Dask cluster.")
    parser.add_argument("folder", type=Path, help="folder to make; it must not exist")
    parser.add_argument("--days", type=int, default=365, help="days of validity (default 365)")
    parser.add_argument(
        "--names",
        nargs="+",
        default=[],
        metavar="HOST",
        help="names and addresses that the certificate mentions",
    )
    arguments = parser.parse_args()
    if not 1 <= arguments.days <= 3650:
        sys.exit(f"--days {arguments.days}: give a number from 1 to 3650")
    names = ["localhost", "127.0.0.1", *arguments.names]
    try:
        end = make_certificates(arguments.folder, arguments.days, list(dict.fromkeys(names)))
    except FileExistsError:
        sys.exit(f"{arguments.folder} exists; give another folder, or remove it to replace what it holds")
    except (OSError, ValueError) as error:
        sys.exit(f"no certificates were made: {error}")
    where = arguments.folder.resolve()
    print(
        f"{where} holds ca.pem, dask.pem and dask-key.pem, valid until {end:%Y-%m-%d %H:%M} UTC.\n"
        "dask-key.pem lets its reader run any code in the cluster: keep the folder closed to others, and\n"
        "copy it to every host of the cluster. Before a scheduler, workers or portrait start on a host:\n"
        f"    source deployments/tls.sh {where}\n"
        "and give portrait --set runner.kind=address --set runner.address=tls://HOST:8786"
    )


if __name__ == "__main__":
    main()
