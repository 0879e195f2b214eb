"""What a device says."""

from birthmark.swarm.model import Group


def payload_of(group: Group, name: str, number: int) -> bytes:
    """Return the message of that number: the template filled in, or as many bytes as were asked for."""
    if not group.size:
        return group.payload.replace("{n}", str(number)).replace("{name}", name).encode()
    head = f'{{"n": {number}, "fill": "'.encode()
    fill = group.size - len(head) - 2
    return head + b"x" * fill + b'"}' if fill >= 0 else b"x" * group.size
