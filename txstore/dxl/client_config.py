"""A client's folder of configuration, checked, and whether a broker takes connections with it.

``dxlclient`` reads the same file, and says little of what is wrong with it.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import uuid
from typing import Any

from asn1crypto import pem, x509
from dxlclient.client_config import DxlClientConfig

from txstore.errors import ConfigError, NoConnectionError

CLIENT_CONFIG = "dxlclient.config"

#: Seconds between signs of life on an idle connection.  dxlclient's half an hour would leave a
#: connection to a broker that lost its power unnoticed for as long.
KEEP_ALIVE = 30

#: Seconds that a broker may take to accept a connection.
REACH_TIMEOUT = 3.0

#: What OpenSSL says where one side takes no TLS before 1.3.
_NEWER_ONLY = ("TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE")


def load_client_config(config_dir: str | os.PathLike[str]) -> Any:
    """The ``DxlClientConfig`` of a folder of configuration, with a client id of its own.

    :raises ConfigError: if it cannot work: no such file, no broker, a key that is not the
        certificate's
    """
    path = os.path.join(os.fspath(config_dir), CLIENT_CONFIG)
    if not os.path.isfile(path):
        raise ConfigError(path, "there is no such file")
    try:
        config = DxlClientConfig.create_dxl_config_from_file(path)
    except Exception as error:  # whatever its parsers raise
        raise ConfigError(path, f"cannot be used: {error}") from error
    if not config.brokers:
        raise ConfigError(path, "names no broker")
    try:
        _tls_context(config)
    except _EncryptedKeyError as error:
        raise ConfigError(
            path,
            f"its private key {config.private_key} is encrypted, and nobody is there to type the"
            " passphrase. Take it off (openssl pkey -in KEY -out NEWKEY) and let only the"
            " program's own user read the file",
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            path,
            f"its certificates cannot be used: {error}"
            f" (BrokerCertChain={config.broker_ca_bundle}, CertFile={config.cert_file},"
            f" PrivateKey={config.private_key})",
        ) from error
    config.keep_alive_interval = KEEP_ALIVE
    config.connect_retries = 0
    config.reconnect_when_disconnected = False
    # A broker lets each id in once: two processes with the ClientId of one configuration would
    # throw each other off for ever.
    config._client_id = f"{{{uuid.uuid4()}}}"
    return config


def certificate_end(config: Any) -> float:
    """When the client's certificate ends, in seconds since 1970.

    :raises OSError: its file cannot be read
    :raises ValueError: it holds no certificate
    """
    with open(config.cert_file, "rb") as file:
        _, _, encoded = pem.unarmor(file.read())
    return float(x509.Certificate.load(encoded).not_valid_after.timestamp())


class _EncryptedKeyError(Exception):
    """A private key asks for a passphrase."""


def _tls_context(config: Any) -> ssl.SSLContext:
    """TLS as ``dxlclient`` speaks it, up to the version whose handshake tells everything.

    :raises OSError: its certificates cannot be used
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # From 1.3 on a client hears only after its handshake that its certificate is refused.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("DEFAULT:AES128-SHA256")
    context.load_verify_locations(config.broker_ca_bundle)
    # Without it OpenSSL would ask on the terminal, of a service too.
    context.load_cert_chain(config.cert_file, config.private_key, _no_passphrase)
    return context


def _no_passphrase() -> str:
    raise _EncryptedKeyError


def check_reachable(config: Any) -> None:
    """Find out at once what takes dxlclient ten seconds, and why.

    It would not say what is wrong with a certificate, and one of its threads would die of it.

    :raises NoConnectionError: no broker takes connections
    """
    if config.use_websockets and config.proxy_addr is not None:
        return
    problems = []
    for broker in config.brokers:
        for host in dict.fromkeys(filter(None, (broker.host_name, broker.ip_address))):
            try:
                with socket.create_connection((host, int(broker.port)), REACH_TIMEOUT) as plain:
                    _shake_hands(_tls_context(config), plain)
            except OSError as error:
                problems.append(f"{host} port {broker.port}: {_without_codes(error)}")
            else:
                return
    raise NoConnectionError(f"cannot connect to the fabric: {'; '.join(problems)}")


def _shake_hands(context: ssl.SSLContext, plain: socket.socket) -> None:
    """Find out whether broker and client take each other's certificates.

    :raises OSError: they do not
    """
    try:
        context.wrap_socket(plain).close()
    except TimeoutError:
        pass  # a slow one, for which dxlclient waits longer
    except ssl.SSLError as error:
        if error.reason not in _NEWER_ONLY:
            raise  # else dxlclient will see


def _without_codes(error: OSError) -> str:
    """What OpenSSL says, without its names for it and its line numbers."""
    return re.sub(r"^\[SSL[^]]*\] | \(_ssl\.c:\d+\)$", "", str(error))
