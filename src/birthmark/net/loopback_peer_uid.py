"""Local user of a loopback connection, from the kernel's sock_diag(7).

It queries one socket, whatever their number; /proc/net/tcp would have to be read completely.
"""

import ipaddress
import socket
import struct
from typing import TypeAlias

Address: TypeAlias = tuple[str, int]
_NETLINK_SOCK_DIAG, _BY_FAMILY, _REQUEST = 4, 20, 1
_HEADER = struct.Struct("=IHHII")
_ASKED = struct.Struct("=BBBBI2s2s16s16sI8s")
_ANSWER = struct.Struct("=BB2x48x12xII")
"""Fields of inet_diag_msg: family and state; after the addresses and queues, the user and the inode."""
_ANY_STATE, _NO_COOKIE, _ESTABLISHED = 0xFFFF_FFFF, b"\xff" * 8, 1
_MAX_BYTES, _WAIT_S, _IPV4 = 8192, 0.5, 4


def user_of(peer: Address, here: Address) -> int | None:
    """Return the user ID of the process that connected from `peer` to `here`; None if remote or unknown."""
    try:
        ends = [ipaddress.ip_address(host) for host, _ in (peer, here)]
        if not ends[0].is_loopback or ends[0].version != ends[1].version:
            return None
        family = socket.AF_INET if ends[0].version == _IPV4 else socket.AF_INET6
        ports = (port.to_bytes(2) for _, port in (peer, here))
        hosts = (end.packed.ljust(16, b"\0") for end in ends)
        asked = _ASKED.pack(family, socket.IPPROTO_TCP, 0, 0, _ANY_STATE, *ports, *hosts, 0, _NO_COOKIE)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as line:
            line.settimeout(_WAIT_S)
            line.send(_HEADER.pack(_HEADER.size + len(asked), _BY_FAMILY, _REQUEST, 1, 0) + asked)
            answer = line.recv(_MAX_BYTES)
        _, kind, *_ = _HEADER.unpack_from(answer)
        _, state, user, inode = _ANSWER.unpack_from(answer, _HEADER.size)
    except (OSError, ValueError, OverflowError, AttributeError, struct.error):
        return None
    # For a closed socket the kernel reports user 0 and no inode.
    is_held = kind == _BY_FAMILY and state == _ESTABLISHED and inode != 0
    return int(user) if is_held else None
