"""What is wrong with the name of a device."""

from birthmark.errors import NotFoundError
from birthmark.text import visible_lines


class DeviceNotOnRecordError(NotFoundError):
    """Nothing is on record of that device."""

    code = "device.not_on_record"
    cause = "Nothing here is of '{name}': no certificate, credential, enrollment, hub device or thing."
    fix = (
        "See how it is spelled: `birthmark device ls`. To shut the name out all the same, before a device comes by "
        "it: `birthmark device revoke {name} --block --yes`."
    )
    name: str


class DeviceNameUnseenError(DeviceNotOnRecordError):
    """Nothing is on record of a name with characters that are not seen."""

    code = "device.name_unseen"
    cause = "Nothing here is of '{name}', which has white space around it or characters that are not seen."
    fix = "See how it is spelled: `birthmark device ls`. Without them it is {seen}."

    @property
    def seen(self) -> str:
        return ", ".join(visible_lines(self.name))
