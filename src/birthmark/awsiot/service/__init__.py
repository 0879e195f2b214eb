"""Services of the account: load, decide, commit."""

from birthmark.awsiot.service.access_keys import AccessKeys
from birthmark.awsiot.service.composition import AwsIot

__all__ = ["AccessKeys", "AwsIot"]
