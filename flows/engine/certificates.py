"""Certificates with which a Dask scheduler, its workers and its clients recognise each other.

Dask compares the authority that signed a certificate, not the names of hosts: one certificate serves all
processes of a cluster, on all hosts. The authority's own key is kept nowhere, so nobody can sign another.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY, CERTIFICATE, KEY = "ca.pem", "dask.pem", "dask-key.pem"
"""Names of the files: the authority, the certificate of all processes, and its key."""
CLOCKS = timedelta(minutes=10)
"""Time by which the clocks of two hosts may differ."""


def make_certificates(folder: Path, days: int, names: Iterable[str] = ()) -> datetime:
    """Write an authority, a certificate and its key, and return the time until which they are valid.

    Only the user can enter the folder and read the files.

    Args:
        folder: folder to make.
        days: days of validity.
        names: names and addresses of hosts that the certificate mentions, for programs that compare them.

    Raises:
        FileExistsError: the folder exists.
        ValueError: a name cannot stand in a certificate.
    """
    hosts = dict.fromkeys(("localhost", "127.0.0.1", *names))
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

    authority = (
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
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in hosts]), False)
    )
    pem = serialization.Encoding.PEM
    files = {
        AUTHORITY: authority.sign(authority_key, hashes.SHA256()).public_bytes(pem),
        CERTIFICATE: dask.sign(authority_key, hashes.SHA256()).public_bytes(pem),
        KEY: key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
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
