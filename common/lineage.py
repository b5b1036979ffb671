"""The lineage that every commit, index generation, release and answer carries: what it was made from."""

from pydantic import BaseModel


class Lineage(BaseModel, frozen=True):
    """The inputs, code, settings and run that a commit of a table, or a generation of the index, was made by.

    Attributes:
        run_id: The Dagster run that wrote it.
        asset: The asset key, `layer/table`.
        code_version: The version of Headwater's code.
        config_digest: A digest of the settings that decide the output.
        inputs: Every table that was read, with the version up to which it was consumed.
        fence: The writer's fencing token: each commit of a table has a higher one than the commit before it.
        behind: Of the table of raw documents, the sources that could not be read since `config_digest`
            changed: their documents are not yet as it has them.
    """

    run_id: str
    asset: str
    code_version: str
    config_digest: str
    inputs: dict[str, int]
    fence: int = 0
    behind: tuple[str, ...] = ()
