"""What a chip is: its objects, labels, slots, certificates and memory, and how other programs use its key.

Chips are told apart by data (`profiles`), never by code paths of their own.

Not here: PKCS#11 itself (keys), lists of shipped chips (manifests), enrollment (fleet).
"""
