"""Secure elements: objects, labels, slots, certificates and memory, and use of the key by other programs.

Element types differ by data (`chip_profiles`), never by separate code paths.

Not here: PKCS#11 itself (keys), lists of shipped devices (manifests), enrollment (fleet).
"""
