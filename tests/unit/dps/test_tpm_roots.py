"""Which storage root keys may answer for a TPM."""

from birthmark.dps.rules.tpm_attestation import MAX_ROOTS, MAX_ROOTS_OF_ONE, add_candidate_root, root_of


def test_the_noise_of_one_address_pushes_out_its_own_alone() -> None:
    kept = add_candidate_root((), "192.0.2.1", "the-tpm")
    for number in range(100):
        kept = add_candidate_root(kept, "192.0.2.66", f"noise-{number}")
    assert [root_of(one) for one in kept] == ["the-tpm", *(f"noise-{n}" for n in range(100 - MAX_ROOTS_OF_ONE, 100))]


def test_all_of_them_are_few_and_who_sent_most_goes_first() -> None:
    kept = add_candidate_root((), "192.0.2.1", "the-tpm")
    for number in range(400):
        kept = add_candidate_root(kept, f"198.51.100.{number % 40}", f"noise-{number}")
    assert len(kept) == MAX_ROOTS
    assert "the-tpm" in map(root_of, kept)


def test_what_an_earlier_version_kept_answers_too() -> None:
    assert [root_of(one) for one in add_candidate_root(("AAEC==",), "192.0.2.1", "BB==")] == ["AAEC==", "BB=="]
