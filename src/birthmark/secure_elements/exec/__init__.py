"""Run a program that only accepts key files with a secure element's key.

The command is `birthmark chip exec -- PROGRAM`. The program is unmodified. The program type (`program_detection`) and
the host's capabilities (`host_capabilities`) determine the method (`execution_plan`):

    hook      Python and Node: a module loaded before the program maps the key file to the token (`../hook`)
    engine    curl, openssl: their own options for OpenSSL's PKCS#11 engine (`program_arguments`)
    provider  programs linked with the system's OpenSSL 3, if pkcs11-provider is installed
    proxy     all others: TLS to loopback, and the proxy connects with the element's key (`loopback_tls_proxy`)

No key is ever in a file. A PIN is passed as the path of its file, or of memory that only the program's user can read.
"""

from birthmark.secure_elements.exec.execution_plan import HOOK, ExecutionPlan, plan, run
from birthmark.secure_elements.exec.host_capabilities import find_engine
from birthmark.secure_elements.exec.key_access_strategy import KeyAccess

__all__ = ["HOOK", "ExecutionPlan", "KeyAccess", "find_engine", "plan", "run"]
