"""Recognize RSA keys of the broken generator in some chips (ROCA, CVE-2017-15361, Nemec et al., ACM CCS 2017).

Such primes are powers of 65537 modulo a product of small primes, and so is their product: a modulus that is one modulo
every small prime below comes from that generator (by chance about once in 2^27).
"""

_SMALL_PRIMES = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
_GENERATOR = 65537
_POWERS = {
    prime: frozenset(pow(_GENERATOR, exponent, prime) for exponent in range(1, prime)) for prime in _SMALL_PRIMES
}


def has_roca_pattern(modulus: int) -> bool:
    """Say whether an RSA modulus has the pattern."""
    return all(modulus % prime in powers for prime, powers in _POWERS.items())
