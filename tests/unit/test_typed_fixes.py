"""What a stranger chose stands in a printed command as one quoted word."""

from birthmark.errors import BirthmarkError


class OddNameError(BirthmarkError):
    """A name that a client chose."""

    code = "test.odd_name"
    fix = "Look for {name}: `birthmark why {name}`, or do `{command}`."

    name: str
    command: str


def test_a_fact_in_a_command_is_one_word_of_the_shell() -> None:
    error = OddNameError(name="a; reboot", command="aws iot list-things")
    assert error.explain_fix() == "Look for a; reboot: `birthmark why 'a; reboot'`, or do `aws iot list-things`."


def test_a_fact_that_needs_no_quotes_stands_as_it_is() -> None:
    error = OddNameError(name="gateway-1", command="true")
    assert error.explain_fix() == "Look for gateway-1: `birthmark why gateway-1`, or do `true`."
