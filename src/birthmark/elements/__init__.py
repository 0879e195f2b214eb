"""What a chip is: its objects, labels, slots, certificates and memory, and how other programs use its key.

Chips are told apart by data (`profiles`), never by code paths of their own.

Not here: PKCS#11 itself (keys), lists of shipped chips (manifests), enrollment (fleet).
"""

from birthmark.elements.element import Element
from birthmark.elements.memory import Assignment
from birthmark.elements.objects import ElementObject
from birthmark.elements.profiles import PROFILES, Profile, profile_of
from birthmark.elements.software import SoftwareElement, create_software_element, open_software_element

__all__ = [
    "PROFILES",
    "Assignment",
    "Element",
    "ElementObject",
    "Profile",
    "SoftwareElement",
    "create_software_element",
    "open_software_element",
    "profile_of",
]
