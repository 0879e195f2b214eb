"""Run a program that only takes key files with the chip's key (`birthmark chip exec -- PROGRAM`).

The program stays as it is. What it is (`program`) and what the machine has (`machine`) decide the way (`choose`):

hook      Python and Node: a module loaded before the program maps the key file to the token (`../hook`)
engine    curl, openssl: their own options for OpenSSL's PKCS#11 engine (`arguments`)
provider  anything that links the system's OpenSSL 3, where pkcs11-provider is installed (`provider`)
proxy     the rest: it talks TLS to loopback, and the proxy talks on with the chip's key (`proxy`)

No key is ever in a file. A PIN goes by the path of its file, or of memory that only the program's user can read.
"""

from birthmark.secure_elements.exec.execution_plan import HOOK, ExecutionPlan, plan, run
from birthmark.secure_elements.exec.host_capabilities import find_engine
from birthmark.secure_elements.exec.strategy import KeyAccess

__all__ = ["HOOK", "ExecutionPlan", "KeyAccess", "find_engine", "plan", "run"]
