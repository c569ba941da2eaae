from manifests.schema import DECIDED, FIELDS, INTERNAL, VERDICT, manifest_schema, rejected_schema


def test_every_column_says_what_it_means() -> None:
    for field in FIELDS.values():
        assert field.metadata[b"meaning"], field.name


def test_rejected_is_the_manifest_and_the_verdict() -> None:
    assert rejected_schema().names == [*manifest_schema().names, *VERDICT]
    assert INTERNAL.isdisjoint(manifest_schema().names)
    assert set(DECIDED) <= set(manifest_schema().names)
